from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envs.base import Env, EnvConfig, Play
from tasks.engines.scripted import ScriptedEngine
from tasks.observing.logs import JsonLines, collection_id
from tasks.rollout.config import CollectConfig
from tasks.rollout.journal import Journal
from tasks.rollout.play import play_owed
from tests.tasks.rollout.adding_game import AddingGame, NoSandbox
from tests.tasks.rollout.playing import IDENTITY, plan

logger = logging.getLogger("envs.noisy")
REPLY = "what the model wrote"


class Noisy(AddingGame):
    """Logs from its own code, which runs in a thread, and breaks."""

    def play(self) -> Play:
        (reply,) = yield [self.ask("adder", self.problem.statement)]
        logger.info("has a reply")
        raise ValueError(reply)


@pytest.fixture
def lines() -> Iterator[Any]:
    """`lines()`: what was logged so far, parsed."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(lambda: {"flow_run": "1234"}))
    loggers = [logging.getLogger(name) for name in ("envs", "tasks")]
    before = [each.level for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for each, level in zip(loggers, before, strict=True):
        each.removeHandler(handler)
        each.setLevel(level)


async def play(env_class: type[Env], folder: Path, count: int) -> None:
    collection_id.set("c0ffee")
    with Journal.open(folder, IDENTITY) as journal:
        await play_owed(
            plan(count),
            env_class=env_class,
            env_config=EnvConfig(name="noisy_env"),
            sandbox=NoSandbox(),
            engine=ScriptedEngine(lambda _: REPLY),
            journal=journal,
            collect=CollectConfig(max_error_rate=1.0),
            max_concurrency=3,
            timeout_s=10.0,
        )


def test_records_of_an_episode_name_it_whichever_thread_they_come_from(lines: Any, tmp_path: Path) -> None:
    asyncio.run(play(Noisy, tmp_path, 6))
    found = lines()
    by_message = {message: [r for r in found if r["message"] == message] for message in {r["message"] for r in found}}
    assert set(by_message) == {"6 episodes are owed, 0 are finished", "has a reply", "the episode ended in ValueError"}
    for message in ("has a reply", "the episode ended in ValueError"):
        records = by_message[message]
        assert {(r["problem"], r["rollout"]) for r in records} == {tuple(slot.key) for slot in plan(6)}
        assert {(r["env"], r["collection"], r["flow_run"]) for r in records} == {("noisy_env", "c0ffee", "1234")}
    assert REPLY not in json.dumps(found)
    logging.getLogger("tasks.after").info("over")
    assert set(lines()[-1]) == {"time", "level", "logger", "message", "flow_run"}


def test_an_exception_is_told_by_its_kind_and_place_and_not_by_its_text(lines: Any) -> None:
    try:
        int(REPLY)
    except ValueError:
        logging.getLogger("tasks.breaking").exception("cannot count")
    (record,) = lines()
    assert (record["level"], record["error"]) == ("error", "ValueError")
    assert "int(REPLY)" in record["traceback"]
    assert REPLY not in json.dumps(record)


def test_a_message_with_line_breaks_stays_one_line(lines: Any) -> None:
    logging.getLogger("tasks.any").warning("two\nlines: %s", "\u2028")
    assert [r["message"] for r in lines()] == ["two\nlines: \u2028"]
