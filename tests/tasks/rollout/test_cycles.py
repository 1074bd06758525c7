"""Rare searches for cycles: while episodes are played, and no longer."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from tasks.engines.base import ChatRequest, EngineError
from tasks.engines.scripted import ScriptedEngine
from tasks.rollout.cycles import OBJECTS_BETWEEN_SEARCHES, rare_searches
from tasks.rollout.journal import Journal
from tests.tasks.rollout.playing import IDENTITY, plan, play


def test_python_searches_as_before_when_it_is_over_however_it_ends() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(KeyError), rare_searches():
        assert gc.get_threshold() == (OBJECTS_BETWEEN_SEARCHES, *before[0][1:])
        assert gc.get_freeze_count() > before[1]
        raise KeyError
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_episodes_are_played_with_rare_searches(tmp_path: Path) -> None:
    seen = []

    def reply(request: ChatRequest) -> str:
        seen.append(gc.get_threshold()[0])
        raise LookupError("no more")

    with Journal.open(tmp_path, IDENTITY) as journal, pytest.raises(EngineError):
        play(plan(1), journal, ScriptedEngine(reply))
    assert seen == [OBJECTS_BETWEEN_SEARCHES]
    assert gc.get_threshold()[0] < OBJECTS_BETWEEN_SEARCHES
