"""An episode that takes too long ends as an error of its own, and nothing else does."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from envs.base import Env, EnvConfig
from tasks.engines.base import ChatRequest, EngineError
from tasks.engines.scripted import ScriptedEngine
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode
from tasks.rollout.journal import Journal, read_episodes
from tasks.rollout.play import TooManyErrors, play_episode
from tests.tasks.rollout import adding_game as games
from tests.tasks.rollout.playing import IDENTITY, answer_or_not, plan, play

LIMIT_S = 0.3


def play_one(
    env_class: type[Env],
    engine: ScriptedEngine,
    free: AbstractAsyncContextManager[Any] | None = None,
    limit_s: float = LIMIT_S,
) -> Episode:
    return asyncio.run(
        play_episode(
            plan(1)[0],
            env_class,
            EnvConfig(name="adding"),
            games.NoSandbox(),
            engine,
            CollectConfig(),
            free=free,
            episode_timeout_s=limit_s,
        )
    )


def replying_after(*waits_s: float) -> ScriptedEngine:
    """Takes its time for each reply, the last wait again and again; no two replies are the same."""
    waits = iter(waits_s)

    async def reply(request: ChatRequest) -> str:
        await asyncio.sleep(next(waits, waits_s[-1]))
        return f"{request.seed}"

    return ScriptedEngine(reply)


def test_an_episode_that_takes_too_long_is_an_error_that_keeps_its_turns() -> None:
    closed = []

    class TidyGame(games.EndlessGame):
        def play(self):  # type: ignore[no-untyped-def]
            try:
                yield from super().play()
            finally:
                closed.append(True)

    began = time.monotonic()
    episode = play_one(TidyGame, replying_after(0.0, 0.0, 30.0))
    assert LIMIT_S <= time.monotonic() - began < 5
    assert closed == [True]
    assert episode.error is not None
    assert (episode.error.kind, episode.error.traceback) == ("EpisodeTimeout", "")
    assert "not over within engine.episode_timeout_s=0.3 s; raise it" in episode.error.message
    assert [(turn.reward, turn.success) for turn in episode.turns] == [(0.0, False)] * 2
    assert not episode.success


def test_the_time_of_all_turns_counts_and_that_of_the_env() -> None:
    class SlowGame(games.EndlessGame):
        def play(self):  # type: ignore[no-untyped-def]
            asks = super().play()
            replies = next(asks)
            while True:
                replies = yield replies
                time.sleep(0.12)
                replies = asks.send(replies)

    for game, engine in ((games.EndlessGame, replying_after(0.12)), (SlowGame, replying_after(0.0))):
        episode = play_one(game, engine)
        assert episode.error is not None and episode.error.kind == "EpisodeTimeout"
        assert len(episode.turns) in (2, 3)


def test_an_episode_in_time_is_as_it_is_without_a_limit() -> None:
    episode = play_one(games.AddingGame, ScriptedEngine(lambda request: "1"))
    assert (episode.success, episode.error, len(episode.turns)) == (True, None, 1)


def test_a_request_that_nobody_waits_for_any_more_is_cancelled() -> None:
    cancelled = []

    async def hang(request: ChatRequest) -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(request)
            raise
        return ""

    episode = play_one(games.PairGame, ScriptedEngine(hang))
    assert episode.error is not None and not episode.turns
    assert len(cancelled) == 2


class OneAfterTheOther(AbstractAsyncContextManager[None]):
    """Places that are long in coming."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._free = asyncio.Semaphore(1)

    async def __aenter__(self) -> None:
        await self._free.acquire()
        await asyncio.sleep(self._wait_s)

    async def __aexit__(self, *exc_info: object) -> None:
        self._free.release()


def test_waiting_for_a_place_does_not_count() -> None:
    began = time.monotonic()
    engine = ScriptedEngine(lambda request: "1")
    for game in (games.AddingGame, games.PairGame):
        assert play_one(game, engine, OneAfterTheOther(2 * LIMIT_S)).error is None
    assert time.monotonic() - began > 6 * LIMIT_S


def test_a_request_that_hangs_is_not_hidden_by_one_that_waits_for_its_place() -> None:
    began = time.monotonic()
    episode = play_one(games.PairGame, replying_after(30.0), asyncio.Semaphore(1))
    assert episode.error is not None and episode.error.kind == "EpisodeTimeout"
    assert time.monotonic() - began < 5


def test_a_fault_of_the_engine_stays_one() -> None:
    def fail(request: ChatRequest) -> str:
        raise OSError("gone")

    with pytest.raises(EngineError, match="gone"):
        play_one(games.AddingGame, ScriptedEngine(fail))


async def hangs_on_tens(request: ChatRequest) -> str:
    if request.messages[0]["content"].startswith(("10 ", "20 ")):
        await asyncio.sleep(30)
    return answer_or_not(request)


def test_a_run_goes_on_after_episodes_that_took_too_long_and_counts_them(tmp_path: Path) -> None:
    engine = ScriptedEngine(hangs_on_tens)
    with Journal.open(tmp_path, IDENTITY) as journal:
        assert play(plan(30), journal, engine, max_error_rate=0.1, episode_timeout_s=LIMIT_S, max_concurrency=1) == 30
        ref = journal.publish(plan(30))
    assert (ref.finished, ref.errored) == (30, 2)
    errors = {e.env_idx: e.error.kind for e in read_episodes(tmp_path) if e.error is not None}
    assert errors == {10: "EpisodeTimeout", 20: "EpisodeTimeout"}


def test_more_of_them_than_allowed_fail_the_run_and_say_why(tmp_path: Path) -> None:
    with (
        Journal.open(tmp_path, IDENTITY) as journal,
        pytest.raises(TooManyErrors, match=r"Most are EpisodeTimeout \(2\): .*raise it for what is still to be played"),
    ):
        play(plan(30), journal, ScriptedEngine(hangs_on_tens), max_error_rate=0.05, episode_timeout_s=LIMIT_S)
