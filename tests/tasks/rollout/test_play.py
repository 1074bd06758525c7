"""The loop: what becomes of replies, of exceptions, and of the order in which things happen."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from envs.base import Env, EnvConfig, Play
from envs.sandbox.base import SandboxError
from tasks.engines.base import ChatRequest, Completion, EngineError
from tasks.engines.scripted import ScriptedEngine
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode
from tasks.rollout.journal import Journal, read_episodes
from tasks.rollout.plan import Slot, due_slots
from tasks.rollout.play import TooManyErrors, check_error_rate, max_live_episodes, owed_slots, play_episode
from tests.tasks.rollout import adding_game as games
from tests.tasks.rollout.adding_game import add_problems
from tests.tasks.rollout.playing import IDENTITY, answer_or_not, plan, play, timeless


def play_one(env_class: type[Env], engine: ScriptedEngine | None = None, max_turns: int = 3) -> Episode:
    config = EnvConfig(name="adding", max_turns=max_turns)
    engine = engine or ScriptedEngine(lambda request: "1")
    return asyncio.run(play_episode(plan(1)[0], env_class, config, games.NoSandbox(), engine, CollectConfig()))


def test_an_unscored_ask_inherits_the_verdict() -> None:
    won, lost = play_one(games.AddingGame), play_one(games.AddingGame, ScriptedEngine(lambda request: "7"))
    assert (won.success, won.turns[0].success, won.turns[0].reward) == (True, True, 1.0)
    assert (lost.success, lost.turns[0].success, lost.turns[0].reward) == (False, False, 0.0)
    assert won.metadata == {"engine": "scripted", "sandbox_tier": "none"}
    assert won.error is lost.error is None


def test_simultaneous_asks_are_in_flight_together_and_keep_their_own_scores() -> None:
    in_flight = most = 0

    async def reply(request: ChatRequest) -> str:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.01)
        in_flight -= 1
        return "1"

    episode = play_one(games.PairGame, ScriptedEngine(reply))
    assert most == 2
    assert [(t.agent_name, t.turn_idx, t.reward, t.success) for t in episode.turns] == [
        ("adder", 0, 1.0, True),
        ("checker", 0, 0.5, False),
    ]


def test_turns_hold_what_the_policy_saw_even_if_the_env_goes_on_with_the_same_list() -> None:
    seen: list[list[str]] = []

    def disagree(request: ChatRequest) -> str:
        seen.append([m["content"] for m in request.messages])
        return str(len(seen))

    episode = play_one(games.PairGame, ScriptedEngine(disagree))
    assert [len(t.messages) for t in episode.turns] == [1, 1, 3, 1, 5, 1]
    assert [[m["content"] for m in t.messages] for t in episode.turns] == seen


@pytest.mark.parametrize(
    ("env_class", "kind", "message", "num_turns"),
    [
        (games.ForgetfulGame, "RuntimeError", "ended without setting success", 1),
        (games.EndlessGame, "RuntimeError", "more than max_turns=3", 3),
        (games.QuittingGame, "SystemExit", "3", 0),
        (games.NotANumberGame, "ValueError", "reward of adder's turn 0 is nan", 1),
        (games.UnsayableGame, "UnicodeEncodeError", "surrogates not allowed", 0),
        (games.UnwritableGame, "TypeError", "set is not JSON serializable", 1),
        (games.NoGeneratorGame, "TypeError", "'list' object is not an iterator", 0),
    ],
)
def test_an_exception_of_the_env_is_recorded(env_class: type[Env], kind: str, message: str, num_turns: int) -> None:
    episode = play_one(env_class)
    assert episode.error is not None
    assert episode.error.kind == kind
    assert message in episode.error.message
    assert env_class is games.NotANumberGame or kind in episode.error.traceback
    assert not episode.success
    assert [(t.reward, t.success) for t in episode.turns] == [(0.0, False)] * num_turns
    assert Episode.model_validate_json(episode.model_dump_json()) == episode


def test_half_a_surrogate_pair_in_a_reply_can_be_written() -> None:
    episode = play_one(games.AddingGame, ScriptedEngine(lambda request: "1\ud83d"))
    assert episode.turns[0].reply == "1?"
    assert Episode.model_validate_json(episode.model_dump_json()) == episode


def test_an_env_that_is_left_early_runs_its_finally_blocks() -> None:
    closed = []

    class TidyGame(games.AddingGame):
        def play(self):  # type: ignore[no-untyped-def]
            try:
                yield from super().play()
            finally:
                closed.append(self.problem.answer)

    def fail(request: ChatRequest) -> str:
        raise OSError("gone")

    with pytest.raises(EngineError):
        play_one(TidyGame, ScriptedEngine(fail))
    assert closed == [1]


def test_an_engine_fault_stops_the_run_and_a_rerun_plays_the_rest(tmp_path: Path) -> None:
    num_requests = 0

    def dies_after_twenty(request: ChatRequest) -> str:
        nonlocal num_requests
        num_requests += 1
        if num_requests > 20:
            raise ConnectionError("server gone")
        return answer_or_not(request)

    told = r"server gone.* of 60 episodes are safe in .*; the same command plays"
    with Journal.open(tmp_path / "a", IDENTITY) as journal, pytest.raises(EngineError, match=told):
        play(plan(60), journal, ScriptedEngine(dies_after_twenty))
    safe = read_episodes(tmp_path / "a")
    num_safe = len(safe)
    assert 0 < num_safe <= 20
    assert all(episode.error is None for episode in safe)
    with Journal.open(tmp_path / "a", IDENTITY) as journal:
        assert play(plan(60), journal) == 60 - num_safe
        assert play(plan(60), journal) == 0
    with Journal.open(tmp_path / "b", IDENTITY) as journal:
        play(plan(60), journal)
    assert timeless(read_episodes(tmp_path / "a")) == timeless(read_episodes(tmp_path / "b"))


def test_a_sandbox_fault_stops_the_run_and_is_no_episode(tmp_path: Path) -> None:
    with Journal.open(tmp_path, IDENTITY) as journal:
        with pytest.raises(SandboxError, match=r"no sandbox here.*0 of 5 episodes are safe"):
            play(plan(5), journal, env_class=games.SandboxGame)
        assert not journal.finished


def test_a_request_without_a_reply_in_time_is_an_engine_fault(tmp_path: Path) -> None:
    async def never(request: ChatRequest) -> str:
        await asyncio.sleep(60)
        return ""

    with Journal.open(tmp_path, IDENTITY) as journal, pytest.raises(EngineError, match=r"no reply within 0\.05 s"):
        play(plan(5), journal, ScriptedEngine(never), timeout_s=0.05)


def test_errors_within_the_bound_are_kept_and_one_more_fails_the_run(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "a", IDENTITY) as journal:
        assert play(plan(100), journal, env_class=games.RaisingGame, max_error_rate=0.10) == 100
        ref = journal.publish(plan(100))
        assert (ref.errored, ref.finished) == (10, 100)
    with Journal.open(tmp_path / "b", IDENTITY) as journal:
        with pytest.raises(TooManyErrors, match=r"LookupError \(10\): .*no \d+ here.*shard-0000\.jsonl:\d+") as caught:
            play(plan(100), journal, env_class=games.RaisingGame, max_error_rate=0.09)
        with pytest.raises(TooManyErrors):
            check_error_rate(plan(100), journal, 0.09)
        check_error_rate(plan(100), journal, 0.10)
        line = int(str(caught.value).split("shard-0000.jsonl:")[1].split(".")[0])
        assert read_episodes(journal.path)[line - 1].error is not None
        assert sum(entry.error is not None for entry in journal.finished.values()) == 10


def test_too_many_errors_stop_the_run_as_soon_as_they_are_certain(tmp_path: Path) -> None:
    with Journal.open(tmp_path, IDENTITY) as journal:
        with pytest.raises(TooManyErrors, match=r"SystemExit \(\d+\)"):
            play(plan(100), journal, env_class=games.QuittingGame, max_concurrency=1)
        assert 5 < len(journal.finished) < 20
        with pytest.raises(TooManyErrors):
            play(plan(100), journal, env_class=games.QuittingGame)


def test_one_error_among_the_few_that_are_due_first_does_not_stop_a_plan_that_may_grow(tmp_path: Path) -> None:
    errors = iter([LookupError("once")])

    class FlakyGame(games.AddingGame):
        def play(self) -> Play:
            yield from super().play()
            if error := next(errors, None):
                raise error

    def due(journal: Journal) -> list[Slot]:
        outcomes = {key: entry.success for key, entry in journal.finished.items()}
        return due_slots(add_problems(100), 100, 10, 1, outcomes)

    with Journal.open(tmp_path, IDENTITY) as journal:
        assert len(due(journal)) == 10
        while owed_slots(due(journal), journal):
            play(due(journal), journal, env_class=FlakyGame, num_episodes=100)
        played = len(due(journal))
        assert played > 50
        check_error_rate(due(journal), journal, 1 / played)
        with pytest.raises(TooManyErrors, match=f"1 of {played} episodes ended in an error"):
            check_error_rate(due(journal), journal, 1 / played - 1e-6)


def test_replies_do_not_depend_on_concurrency(tmp_path: Path) -> None:
    for concurrency in (1, 64):
        with Journal.open(tmp_path / str(concurrency), IDENTITY) as journal:
            play(plan(80, rollouts=4), journal, env_class=games.PairGame, max_concurrency=concurrency)
    assert timeless(read_episodes(tmp_path / "1")) == timeless(read_episodes(tmp_path / "64"))


def test_one_slow_episode_holds_nothing_back(tmp_path: Path) -> None:
    finished_before_slow = 0
    num_replies = 0

    async def first_is_slow(request: ChatRequest) -> str:
        nonlocal num_replies, finished_before_slow
        if request.messages[0]["content"] == "0 + 1":
            while num_replies < 99:
                await asyncio.sleep(0.001)
            finished_before_slow = num_replies
        num_replies += 1
        return answer_or_not(request)

    with Journal.open(tmp_path, IDENTITY) as journal:
        play(plan(100), journal, ScriptedEngine(first_is_slow), max_concurrency=4, timeout_s=20)
    assert finished_before_slow == 99


def test_requests_in_flight_reach_max_concurrency_and_never_exceed_it(tmp_path: Path) -> None:
    in_flight = 0
    seen: list[int] = []

    async def reply(request: ChatRequest) -> str:
        nonlocal in_flight
        in_flight += 1
        seen.append(in_flight)
        await asyncio.sleep(0.002)
        in_flight -= 1
        return "1"

    with Journal.open(tmp_path, IDENTITY) as journal:
        play(plan(200), journal, ScriptedEngine(reply), env_class=games.PairGame, max_concurrency=6)
    assert max(seen) == 6


def test_the_engine_has_work_while_envs_block(tmp_path: Path) -> None:
    busy_s = 0.0

    class SlowGame(games.AddingGame):
        def play(self):  # type: ignore[no-untyped-def]
            yield from super().play()
            time.sleep(0.02)

    async def reply(request: ChatRequest) -> str:
        nonlocal busy_s
        began = time.monotonic()
        await asyncio.sleep(0.02)
        busy_s += time.monotonic() - began
        return "1"

    began = time.monotonic()
    with Journal.open(tmp_path, IDENTITY) as journal:
        play(plan(100), journal, ScriptedEngine(reply), env_class=SlowGame, max_concurrency=4)
    assert busy_s / (4 * (time.monotonic() - began)) > 0.6  # half at best if a blocked env kept its place


def test_a_cancelled_run_keeps_what_had_finished(tmp_path: Path) -> None:
    class Interrupting:
        num_finished = 0

        def started(self, total: int, finished: int, succeeded: int) -> None: ...

        def request_finished(self, completion: Completion) -> None: ...

        def episode_finished(self, episode: Episode) -> None:
            self.num_finished += 1
            if self.num_finished == 10:
                signal.raise_signal(signal.SIGINT)

    progress = Interrupting()
    with pytest.raises(KeyboardInterrupt), Journal.open(tmp_path, IDENTITY) as journal:
        play(plan(100), journal, progress=progress)
    num_safe = len(read_episodes(tmp_path))
    assert 10 <= num_safe <= 10 + max_live_episodes(8)
    with Journal.open(tmp_path, IDENTITY) as journal:
        assert len(owed_slots(plan(100), journal)) == 100 - num_safe
        assert play(plan(100), journal) == 100 - num_safe


@pytest.mark.parametrize(
    ("policies", "adapters", "names", "answered_by"),
    [
        ({}, [], ["shared_model", "shared_model"], ["bare", "bare"]),
        ({}, ["shared_model"], ["shared_model", "shared_model"], ["shared_model", "shared_model"]),
        ({"checker": "critic"}, ["critic"], ["shared_model", "critic"], ["bare", "critic"]),
        ({"checker": "critic"}, ["shared_model"], ["shared_model", "critic"], ["shared_model", "bare"]),
        ({"adder": "a", "checker": "b"}, ["a", "b"], ["a", "b"], ["a", "b"]),
    ],
)
def test_each_role_is_played_by_its_policy_and_each_policy_by_its_adapter(
    tmp_path: Path, policies: dict[str, str], adapters: list[str], names: list[str], answered_by: list[str]
) -> None:
    engine = ScriptedEngine(lambda request: request.adapter or "bare")
    with Journal.open(tmp_path, IDENTITY) as journal:
        play(plan(5), journal, engine, env_class=games.PairGame, policies=policies, adapters=adapters)
    for episode in read_episodes(tmp_path):
        assert [turn.agent_name for turn in episode.turns[:2]] == ["adder", "checker"]
        assert [turn.policy_name for turn in episode.turns[:2]] == names
        assert [turn.reply for turn in episode.turns[:2]] == answered_by


def test_a_single_episode_has_policies_and_adapters_too() -> None:
    engine = ScriptedEngine(lambda request: request.adapter or "bare")
    config, sandbox = EnvConfig(name="adding"), games.NoSandbox()
    roles = {"policies": {"checker": "critic"}, "adapters": {"critic"}}
    episode = asyncio.run(
        play_episode(plan(1)[0], games.PairGame, config, sandbox, engine, CollectConfig(), **roles)  # type: ignore[arg-type]
    )
    assert [(t.policy_name, t.reply) for t in episode.turns[:2]] == [("shared_model", "bare"), ("critic", "critic")]


def test_what_progress_has_counted_is_on_disk(tmp_path: Path) -> None:
    class Checking:
        counted = 0

        def started(self, total: int, finished: int, succeeded: int) -> None:
            assert (total, finished, succeeded) == (30, 0, 0)

        def request_finished(self, completion: Completion) -> None: ...

        def episode_finished(self, episode: Episode) -> None:
            self.counted += 1
            assert episode.problem_hash in (tmp_path / "shard-0000.jsonl").read_text()

    progress = Checking()
    with Journal.open(tmp_path, IDENTITY) as journal:
        play(plan(30), journal, progress=progress)
    assert progress.counted == 30
