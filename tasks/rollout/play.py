"""The rollout loop: where envs meet an engine. There is no other; collecting and evaluating both play here.

In come slots of a plan, out go episodes in the journal. Every live episode is a coroutine that plays on as soon as its
replies are there: no waves. What an env does itself is run in threads; see `game.py`.

Three kinds of faults are kept apart: a bad reply is the env's business and ends in its verdict; an env that raises, or
does not come back, or an episode that takes too long, ends in the episode's error; a fault of the engine or the sandbox
stops the run, and a later run resumes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from envs.base import Ask, Env, EnvConfig, Message
from envs.faults import ServiceError
from envs.replies import encodable
from envs.sandbox.base import Sandbox
from tasks.engines.base import ChatRequest, Completion, Engine, EngineError
from tasks.observing.logs import episode_id
from tasks.rollout.config import CollectConfig
from tasks.rollout.cycles import rare_searches
from tasks.rollout.env_threads import EnvThreads
from tasks.rollout.episode import SHARED_POLICY, Episode, EpisodeError, EpisodeKey
from tasks.rollout.episode_clock import EpisodeClock, EpisodeTimeout
from tasks.rollout.game import EnvFault, Exchange, Game
from tasks.rollout.plan import Slot, episode_seed
from tasks.rollout.progress import Progress, Silent
from tasks.rollout.shard import ShardWriter

logger = logging.getLogger(__name__)

MAX_ENV_THREADS = 32
ALL_SHARED: Mapping[str, str] = MappingProxyType({})
"""Every role is played by the shared policy."""


class TooManyErrors(RuntimeError):
    """More episodes ended in an exception of the env than `max_error_rate` allows. They are in the journal."""


def max_live_episodes(max_concurrency: int) -> int:
    """Most episodes that are played at once, and so the most that a kill costs.

    More than requests in flight, so that the engine has work while some episodes wait for their env.
    """
    return max_concurrency + min(max_concurrency, MAX_ENV_THREADS)


def owed_slots(slots: Sequence[Slot], journal: ShardWriter) -> list[Slot]:
    """The slots whose episodes are not in the journal."""
    return [slot for slot in slots if slot.key not in journal.finished]


def num_succeeded(slots: Sequence[Slot], journal: ShardWriter) -> int:
    """How many of the slots' episodes are in the journal and succeeded."""
    return sum(journal.finished[slot.key].success for slot in slots if slot.key in journal.finished)


async def play_owed(
    slots: Sequence[Slot],
    *,
    env_class: type[Env],
    env_config: EnvConfig,
    sandbox: Sandbox,
    engine: Engine,
    journal: ShardWriter,
    collect: CollectConfig,
    max_concurrency: int,
    timeout_s: float,
    episode_timeout_s: float | None = None,
    policies: Mapping[str, str] = ALL_SHARED,
    adapters: Collection[str] = (),
    progress: Progress | None = None,
) -> int:
    """Play those of `slots` that the journal does not hold, and append them to it. Returns how many were played.

    `slots` may be the first part of a plan that follows the outcomes; `collect.num_episodes` is how many it has at
    most, and too many errors are as many as would be too many of that.

    `policies` and `adapters` say who answers: see `play_episode`. `timeout_s` bounds one request, once the engine has
    it, and `episode_timeout_s` one episode, from its first request on.

    Raises:
        EngineError, ServiceError: the infrastructure failed. What had finished is in the journal.
        TooManyErrors: the env raises too often.
        JournalWriteError: episodes cannot be written.
    """
    progress = progress or Silent()
    budget = _ErrorBudget(slots, journal, collect.max_error_rate, most_slots=collect.num_episodes)
    owed = owed_slots(slots, journal)
    progress.started(len(slots), len(slots) - len(owed), num_succeeded(slots, journal))
    logger.info("%d episodes are owed, %d are finished", len(owed), len(slots) - len(owed))
    num_live = min(max_live_episodes(max_concurrency), len(owed))
    queue = iter(owed)

    async def play_on(stage: _Stage) -> None:
        for slot in queue:
            episode = await _play(slot, stage)
            await journal.append(episode)
            progress.episode_finished(episode)
            budget.spend(episode)

    try:
        with rare_searches():
            async with EnvThreads(MAX_ENV_THREADS, env_config.timeout_s) as threads, asyncio.TaskGroup() as live:
                stage = _Stage(
                    env_class=env_class,
                    env_config=env_config,
                    sandbox=sandbox,
                    engine=engine,
                    collect=collect,
                    policies=policies,
                    adapters=adapters,
                    timeout_s=timeout_s,
                    episode_timeout_s=episode_timeout_s,
                    progress=progress,
                    free=engine.places(max_concurrency),
                    threads=threads,
                )
                for _ in range(num_live):
                    live.create_task(play_on(stage))
    except BaseExceptionGroup as group:
        raise _with_way_on(group.exceptions[0], slots, journal) from group
    return len(owed)


async def play_episode(
    slot: Slot,
    env_class: type[Env],
    env_config: EnvConfig,
    sandbox: Sandbox,
    engine: Engine,
    collect: CollectConfig,
    *,
    policies: Mapping[str, str] = ALL_SHARED,
    adapters: Collection[str] = (),
    timeout_s: float = 600.0,
    episode_timeout_s: float | None = None,
    free: AbstractAsyncContextManager[Any] | None = None,
) -> Episode:
    """Play one episode by itself, without a journal. What goes wrong in the env becomes the episode's `error`, and so
    does an end that does not come within `episode_timeout_s`.

    `policies` names the policy of each role; a role that it does not name is played by `SHARED_POLICY`. A policy in
    `adapters` is answered by the engine's adapter of that name, any other by the bare model. `free` is held by each
    request in flight.

    Raises:
        EngineError, ServiceError: the infrastructure failed, and there is no episode.
    """
    async with EnvThreads(1, env_config.timeout_s) as threads:
        stage = _Stage(
            env_class=env_class,
            env_config=env_config,
            sandbox=sandbox,
            engine=engine,
            collect=collect,
            policies=policies,
            adapters=adapters,
            timeout_s=timeout_s,
            episode_timeout_s=episode_timeout_s,
            progress=Silent(),
            free=free or nullcontext(),
            threads=threads,
        )
        return await _play(slot, stage)


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """All that an episode is played with; see `play_episode`."""

    env_class: type[Env]
    env_config: EnvConfig
    sandbox: Sandbox
    engine: Engine
    collect: CollectConfig
    policies: Mapping[str, str]
    adapters: Collection[str]
    timeout_s: float
    episode_timeout_s: float | None
    progress: Progress
    free: AbstractAsyncContextManager[Any]
    threads: EnvThreads
    clock: EpisodeClock | None = None
    """The episode's own, if its time is limited."""


async def _play(slot: Slot, stage: _Stage) -> Episode:
    around = episode_id.set((slot.problem.hash, slot.rollout_idx, stage.env_config.name))
    started = time.monotonic()
    game = Game(slot.problem, stage.env_class, stage.env_config, stage.sandbox, stage.threads)
    error = None
    if stage.episode_timeout_s is not None:
        clock = EpisodeClock(stage.episode_timeout_s, stage.free)
        stage = replace(stage, free=clock.places, clock=clock)
    try:
        async with stage.clock or nullcontext():
            asks = await game.begin()
            while asks:
                asks = await game.go_on(await _answer_all(asks, slot.key, stage))
            outcome = game.outcome
    except EnvFault as fault:
        outcome, error = game.broken_off(), fault.as_error()
    except EpisodeTimeout as timeout:
        outcome = game.broken_off()
        error = EpisodeError(kind=type(timeout).__name__, message=str(timeout), traceback="")
    finally:
        await game.close()
        if error is not None:
            logger.info("the episode ended in %s", error.kind)
        episode_id.reset(around)
    return Episode(
        problem_hash=slot.problem.hash,
        rollout_idx=slot.rollout_idx,
        env_idx=slot.env_idx,
        env_name=stage.env_config.name,
        difficulty=slot.problem.difficulty,
        success=outcome.success,
        turns=outcome.turns,
        error=error,
        duration_s=time.monotonic() - started,
        metadata={**outcome.metadata, "engine": stage.engine.name, "sandbox_tier": stage.sandbox.tier},
    )


async def _answer_all(asks: Sequence[Ask], key: EpisodeKey, stage: _Stage) -> list[Exchange]:
    """Have all asks of one yield answered at once. If one fails, the others are cancelled."""
    if len(asks) == 1:
        return [await _answer(asks[0], key, stage)]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_answer(ask, key, stage)) for ask in asks]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def _answer(ask: Ask, key: EpisodeKey, stage: _Stage) -> Exchange:
    messages: list[Message] = [{"role": m["role"], "content": m["content"]} for m in ask.messages]
    seed = episode_seed(stage.collect.sampling_seed(ask.role), key, ask.role, ask.turn_idx)
    policy = stage.policies.get(ask.role, SHARED_POLICY)
    adapter = policy if policy in stage.adapters else None
    conversation = f"{key.problem_hash}/{key.rollout_idx}/{ask.role}"
    request = ChatRequest(messages, stage.collect.sampling(ask.role), seed, adapter, conversation)
    async with stage.free:
        completion = await _generate(request, stage)
    stage.progress.request_finished(completion)
    return Exchange(ask, policy, messages, completion, encodable(completion.text))


async def _generate(request: ChatRequest, stage: _Stage) -> Completion:
    """One completion. Whatever goes wrong on the way is an EngineError, never the env's or the model's fault."""
    try:
        async with asyncio.timeout(stage.timeout_s) as limit:
            return await stage.engine.generate(replace(request, held_up=partial(_held_up, limit, stage)))
    except EngineError:
        raise
    except Exception as error:
        if limit.expired():
            raise EngineError(
                f"no reply within {stage.timeout_s:g} s; if the model is that slow, raise engine.timeout_s."
            ) from error
        raise EngineError(f"{type(error).__name__}: {error}") from error


@contextmanager
def _held_up(limit: asyncio.Timeout, stage: _Stage) -> Iterator[None]:
    """While the engine cannot be at a request: neither its time counts, which begins anew, nor the episode's."""
    limit.reschedule(None)
    try:
        with stage.clock.held_up() if stage.clock is not None else nullcontext():
            yield
    finally:
        limit.reschedule(asyncio.get_running_loop().time() + stage.timeout_s)


def check_error_rate(slots: Sequence[Slot], journal: ShardWriter, max_error_rate: float, most_slots: int = 0) -> None:
    """See that the journal's share of errored episodes is bearable. `slots`: the whole plan; `most_slots`: how many it
    may come to have, if more may be due in the end.

    Raises:
        TooManyErrors: it is not.
    """
    _ErrorBudget(slots, journal, max_error_rate, most_slots)


class _ErrorBudget:
    """Raises TooManyErrors as soon as it is certain that too large a share of the plan has errored.

    `most_slots`: how many episodes the plan may come to have, if more than these are due in the end.
    """

    def __init__(self, slots: Sequence[Slot], journal: ShardWriter, max_error_rate: float, most_slots: int = 0) -> None:
        self._keys = {slot.key for slot in slots}
        self._num_planned = max(len(slots), most_slots)
        self._journal = journal
        self._max_error_rate = max_error_rate
        self._num_errors = len(self._errors())
        self._check()

    def spend(self, episode: Episode) -> None:
        if episode.error is not None:
            self._num_errors += 1
            self._check()

    def _errors(self) -> list[tuple[str, EpisodeError]]:
        """Where each errored episode of the plan stands, and its error, in the journal's order."""
        return [
            (f"{entry.shard}:{entry.line_number}", entry.error)
            for key, entry in list(self._journal.finished.items())  # the writer's thread adds to it
            if entry.error is not None and key in self._keys
        ]

    def _check(self) -> None:
        if not self._num_errors or self._num_errors / self._num_planned <= self._max_error_rate:
            return
        errors = self._errors()
        [(kind, count)] = Counter(error.kind for _, error in errors).most_common(1)
        where, first = next((where, error) for where, error in errors if error.kind == kind)
        raise TooManyErrors(
            f"{len(errors)} of {self._num_planned} episodes ended in an error, more than "
            f"collect.max_error_rate {self._max_error_rate:g} allows. Most are {kind} ({count}): "
            f"{first.message[:300]!r}, first at {where}. Fix the env, and the same command plays anew; "
            "if the fault lay elsewhere, remove those lines and run it again."
        )


def _with_way_on(error: BaseException, slots: Sequence[Slot], journal: ShardWriter) -> BaseException:
    """An infrastructure fault that also says what is safe and how to go on."""
    num_finished = len(slots) - len(owed_slots(slots, journal))
    hint = f"{num_finished} of {len(slots)} episodes are safe in {journal.where}; the same command plays the rest."
    if isinstance(error, EngineError):
        return EngineError(f"the engine failed: {error} {hint}")
    if isinstance(error, ServiceError):
        return type(error)(f"{error} {hint}")
    return error
