"""Plays reference answers as the rollout loop plays those of a model: in threads, with a deadline, all asks checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from envs.base import Ask, Env, EnvConfig, Problem
from envs.gold import explain_loss
from envs.grading import GradingError
from envs.sandbox.base import Sandbox
from tasks.engines.base import Completion
from tasks.rollout.env_threads import EnvThreads, Overdue
from tasks.rollout.episode import SHARED_POLICY
from tasks.rollout.game import EnvFault, Exchange, Game


@dataclass(frozen=True)
class Loss:
    """A reference answer does not win."""

    reason: str = ""
    """Why nobody can, if the problem's own judge says so."""


Verdict = Loss | EnvFault | None
"""What became of a reference answer: nothing to complain of, a loss, or whatever else went wrong in the env."""


@dataclass(frozen=True)
class GoldPlayer:
    """Plays reference answers, in threads that can be given up."""

    env_class: type[Env]
    env: EnvConfig
    sandbox: Sandbox
    threads: EnvThreads

    async def play_all(
        self, problems: Sequence[Problem], workers: int, one_is_done: Callable[[], None]
    ) -> list[Verdict]:
        """Play several at once; see `play`."""
        verdicts: list[Verdict] = [None] * len(problems)
        queue = iter(enumerate(problems))

        async def play_on() -> None:
            for i, problem in queue:
                verdicts[i] = await self.play(problem)
                one_is_done()

        try:
            async with asyncio.TaskGroup() as players:
                for _ in range(min(workers, len(problems))):
                    players.create_task(play_on())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return verdicts

    async def play(self, problem: Problem) -> Verdict:
        """Play one episode with reference replies.

        Raises:
            NotImplementedError: the env has no reference answers.
            ServiceError: the infrastructure failed.
        """
        game = Game(problem, self.env_class, self.env, self.sandbox, self.threads)
        try:
            asks = await game.begin()
            while asks:
                replies = await self._replies(game, asks)
                asks = await game.go_on([_exchange(ask, reply) for ask, reply in zip(asks, replies, strict=True)])
            return None if game.outcome.success else Loss()
        except EnvFault as fault:
            return Loss(str(fault.cause)) if isinstance(fault.cause, GradingError) else fault
        finally:
            await game.close()

    async def _replies(self, game: Game, asks: Sequence[Ask]) -> list[str]:
        try:
            return await game.reference_replies(asks)
        except EnvFault as fault:
            if isinstance(fault.cause, NotImplementedError):
                raise fault.cause from None
            raise

    async def explain(self, problem: Problem, loss: Loss) -> str:
        """Why a reference answer lost, in words for whoever wrote it."""
        try:
            return loss.reason or await self.threads.run(partial(explain_loss, problem, self.sandbox))
        except GradingError as error:
            return str(error)
        except Overdue:
            return "judged to be wrong"


def _exchange(ask: Ask, reply: str) -> Exchange:
    return Exchange(ask, SHARED_POLICY, ask.messages, Completion(reply, "stop", 0, 0), reply)
