"""What a user sees while episodes are played."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from tasks.rollout import progress as progress_module
from tasks.rollout.journal import Journal
from tasks.rollout.progress import show_progress
from tests.tasks.rollout.playing import IDENTITY, plan, play


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_it_prints_plain_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    monkeypatch.setattr(progress_module, "LINE_EVERY_S", 0.01)
    with Journal.open(tmp_path, IDENTITY) as journal, show_progress("collect") as progress:
        play(plan(100), journal, progress=progress)
    lines = stream.getvalue().splitlines()
    form = re.compile(r"collect: \d+/100 episodes, (\d+%|-) success, [\d,]+ tokens/s, ETA (-|\d:\d\d:\d\d)")
    assert len(lines) > 1
    assert all(form.fullmatch(line) for line in lines)
    assert lines[-1].startswith("collect: 100/100 episodes")
    assert lines[-1].endswith("ETA 0:00:00")


def test_episodes_that_were_there_before_count_as_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with Journal.open(tmp_path, IDENTITY) as journal:
        play(plan(40), journal)
        with show_progress("collect") as progress:
            play(plan(40), journal, progress=progress)
        share = sum(entry.success for entry in journal.finished.values()) / 40
    assert stream.getvalue() == f"collect: 40/40 episodes, {share:.0%} success, 0 tokens/s, ETA -\n"


def test_on_a_terminal_it_draws_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Journal.open(tmp_path, IDENTITY) as journal, show_progress("collect") as progress:
        play(plan(30), journal, progress=progress)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "30/30" in text
    assert re.search(r"\d+% success, [\d,]+ tokens/s", text)
