"""An env that does not come back costs its own episode and nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from envs.base import Env, EnvConfig
from tasks.engines.base import ChatRequest, EngineError
from tasks.engines.scripted import ScriptedEngine
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode
from tasks.rollout.journal import Journal, read_episodes
from tasks.rollout.play import TooManyErrors, play_episode
from tests.tasks.rollout import adding_game as games
from tests.tasks.rollout.playing import IDENTITY, plan, play

ROOT = Path(__file__).parents[3]
STUCK_RUN = """
import sys
from pathlib import Path
from tasks.rollout.journal import Journal
from tests.tasks.rollout.adding_game import AddingGame, StuckGame
from tests.tasks.rollout.playing import IDENTITY, plan, play

class BusyGame(AddingGame):
    def play(self):
        yield from super().play()
        while self.problem.answer % 10 == 0:
            pass

if __name__ == "__main__":
    with Journal.open(Path(sys.argv[1]), IDENTITY) as journal:
        play(plan(20), journal, env_class=globals()[sys.argv[2]], max_error_rate=0.2, env_timeout_s=0.3)
    print("over", flush=True)
"""


def play_one(env_class: type[Env], engine: ScriptedEngine | None = None, timeout_s: float = 0.2) -> Episode:
    config = EnvConfig(name="adding", timeout_s=timeout_s)
    engine = engine or ScriptedEngine(lambda request: "1")
    return asyncio.run(play_episode(plan(10)[9], env_class, config, games.NoSandbox(), engine, CollectConfig()))


@pytest.mark.parametrize(("env_class", "num_turns"), [(games.StuckAtFirstGame, 0), (games.StuckGame, 1)])
def test_an_env_that_does_not_come_back_ends_its_episode_with_where_it_was(
    env_class: type[Env], num_turns: int
) -> None:
    began = time.monotonic()
    episode = play_one(env_class)
    assert time.monotonic() - began < 5
    assert not episode.success
    assert [(turn.reply, turn.reward) for turn in episode.turns] == [("1", 0.0)] * num_turns
    assert episode.error is not None
    assert episode.error.kind == "EnvTimeout"
    assert episode.error.message == (
        f"{env_class.__name__} was not back within env.timeout_s=0.2 s (after {num_turns} replies); the traceback "
        "shows where it was. Mend what waits for ever, or raise env.timeout_s for what is still to be played; an "
        "episode in a journal is played again once its line is removed."
    )
    assert "adding_game.py" in episode.error.traceback
    assert episode.error.traceback.rstrip().endswith("time.sleep(1)")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the game has logged; what an earlier test left may be collected, and complain, at any time."""
    return [record.message for record in caplog.records if record.name == "tasks.rollout.game"]


def test_an_env_that_cannot_be_ended_is_left_behind_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        episode = play_one(games.StuckAtCloseGame)
    assert time.monotonic() - began < 5
    assert episode.error is not None
    assert episode.error.kind == "RuntimeError"
    [warning] = said(caplog)
    assert "StuckAtCloseGame was ended early, and its finally blocks are not done after 0.2 s" in warning
    assert "in wait_for_ever" in warning


def test_a_fault_of_the_engine_is_told_even_if_the_env_cannot_be_ended() -> None:
    def fail(request: ChatRequest) -> str:
        raise OSError("gone")

    with pytest.raises(EngineError, match="gone"):
        play_one(games.StuckAtCloseGame, ScriptedEngine(fail))


def test_a_finally_block_that_raises_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class SulkingGame(games.EndlessGame):
        def play(self):  # type: ignore[no-untyped-def]
            try:
                yield from super().play()
            finally:
                raise LookupError("nothing to tidy up")

    with caplog.at_level(logging.WARNING):
        episode = play_one(SulkingGame, timeout_s=10)
    assert episode.error is not None
    assert "more than max_turns=3" in episode.error.message
    (line,) = said(caplog)
    assert line.startswith("SulkingGame was ended early, and its finally blocks failed: LookupError\n")
    assert line.endswith('raise LookupError("nothing to tidy up")\n')


@pytest.mark.parametrize("way", ["overdue", "cancelled"])
def test_an_env_that_was_left_at_work_is_closed_by_its_own_thread_when_it_is_back(way: str) -> None:
    release = threading.Event()
    events: list[tuple[str, int]] = []

    class LateGame(games.AddingGame):
        def play(self):  # type: ignore[no-untyped-def]
            try:
                release.wait(30)
                events.append(("back", threading.get_ident()))
                yield [self.ask("adder", self.problem.statement)]
                events.append(("played on", threading.get_ident()))
            finally:
                events.append(("closed", threading.get_ident()))

    async def main() -> None:
        config = EnvConfig(name="adding", timeout_s=0.3 if way == "overdue" else 30)
        engine = ScriptedEngine(lambda request: "1")
        playing = asyncio.create_task(
            play_episode(plan(1)[0], LateGame, config, games.NoSandbox(), engine, CollectConfig())
        )
        await asyncio.wait([playing], timeout=0.1 if way == "cancelled" else None)
        assert not events
        playing.cancel()
        asyncio.get_running_loop().call_later(0.1, release.set)
        await asyncio.wait([playing])
        release.set()
        assert playing.cancelled() == (way == "cancelled")

    asyncio.run(main())
    deadline = time.monotonic() + 10
    while len(events) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [event for event, _ in events] == ["back", "closed"]
    assert len({thread for _, thread in events}) == 1


def test_a_run_with_stuck_envs_finishes_the_other_episodes(tmp_path: Path) -> None:
    began = time.monotonic()
    with Journal.open(tmp_path, IDENTITY) as journal:
        assert play(plan(20), journal, env_class=games.StuckGame, max_error_rate=0.2, env_timeout_s=0.3) == 20
        ref = journal.publish(plan(20))
    assert time.monotonic() - began < 5
    assert (ref.finished, ref.errored) == (20, 2)
    errors = {e.env_idx: e.error.kind for e in read_episodes(tmp_path) if e.error is not None}
    assert errors == {9: "EnvTimeout", 19: "EnvTimeout"}


def test_more_stuck_envs_than_threads_do_not_stop_a_run(tmp_path: Path) -> None:
    class HalfStuckGame(games.AddingGame):
        def play(self):  # type: ignore[no-untyped-def]
            yield from super().play()
            if self.problem.answer % 2 == 0:
                games.wait_for_ever()

    with Journal.open(tmp_path, IDENTITY) as journal:
        play(plan(100), journal, env_class=HalfStuckGame, max_error_rate=0.5, env_timeout_s=0.3, max_concurrency=50)
        assert journal.publish(plan(100)).errored == 50


def test_more_stuck_envs_than_allowed_fail_the_run_and_say_why(tmp_path: Path) -> None:
    began = time.monotonic()
    with (
        Journal.open(tmp_path, IDENTITY) as journal,
        pytest.raises(TooManyErrors, match=r"EnvTimeout \(\d+\): .*not back within.*raise env\.timeout_s"),
    ):
        play(plan(20), journal, env_class=games.StuckAtFirstGame, max_error_rate=0.2, env_timeout_s=0.3)
    assert time.monotonic() - began < 5


def test_a_timed_out_episode_is_played_again_once_its_line_is_removed_and_not_before(tmp_path: Path) -> None:
    with Journal.open(tmp_path, IDENTITY) as journal:
        play(plan(10), journal, env_class=games.StuckGame, max_error_rate=0.2, env_timeout_s=0.3)
        path = journal.path
    with Journal.open(tmp_path, IDENTITY) as journal:
        assert play(plan(10), journal, env_timeout_s=30, max_error_rate=0.2) == 0
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"EnvTimeout"' not in line))
    with Journal.open(tmp_path, IDENTITY) as journal:
        assert play(plan(10), journal, env_timeout_s=30) == 1
        assert journal.publish(plan(10)).errored == 0


@pytest.mark.parametrize("game", ["StuckGame", "BusyGame"])
def test_a_process_with_a_stuck_env_ends_once_its_run_is_over(tmp_path: Path, game: str) -> None:
    script = tmp_path / "stuck_run.py"
    script.write_text(STUCK_RUN)
    command = [sys.executable, str(script), str(tmp_path / "journal"), game]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "over\n"
            assert process.wait(5) == 0
        finally:
            process.kill()
    assert sum(e.error is not None for e in read_episodes(tmp_path / "journal")) == 2
