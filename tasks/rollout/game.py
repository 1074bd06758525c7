"""One env while it is played: the rollout loop's side of `envs.base.Env`.

In come replies, out go asks, and in the end the verdict. Whatever the env does is run in a thread and within
`env.timeout_s`; what goes wrong in it is an `EnvFault`.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from envs.base import Ask, Env, EnvConfig, Message, Play, Problem
from envs.faults import ServiceError
from envs.replies import encodable
from envs.sandbox.base import Sandbox
from tasks.engines.base import Completion
from tasks.observing.logs import episode_id
from tasks.rollout.env_threads import EnvThreads, Overdue
from tasks.rollout.episode import EpisodeError, Turn

MAX_TRACEBACK_CHARS = 8000

T = TypeVar("T")

logger = logging.getLogger(__name__)


class EnvTimeout(Exception):
    """An env was not back in time, and has been left where it was. `stack`: where that is."""

    def __init__(self, message: str, stack: str) -> None:
        super().__init__(message)
        self.stack = stack


class EnvFault(Exception):
    """What went wrong in an env, on its way to the episode that it ended."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause

    def as_error(self) -> EpisodeError:
        """Called on the event loop: formatting parses source, and in Python 3.11.7 two threads cannot do so at once."""
        cause = self.cause
        text = cause.stack if isinstance(cause, EnvTimeout) else "".join(traceback.format_exception(cause))
        return EpisodeError(
            kind=type(cause).__name__,
            message=encodable(str(cause)),
            traceback=encodable(text[-MAX_TRACEBACK_CHARS:]),
        )


@dataclass(frozen=True)
class Exchange:
    """One request and its reply."""

    ask: Ask
    policy: str
    messages: list[Message]
    """As they were sent: an env may go on building on the list that it passed."""
    completion: Completion
    reply: str

    def as_turn(self, reward: float, success: bool) -> Turn:
        return Turn(
            agent_name=self.ask.role,
            policy_name=self.policy,
            turn_idx=self.ask.turn_idx,
            messages=self.messages,
            reply=self.reply,
            finish_reason=self.completion.finish_reason,
            reward=reward,
            success=success,
            trained=self.ask.trained,
            prompt_tokens=self.completion.prompt_tokens,
            completion_tokens=self.completion.completion_tokens,
            prompt_ids=_as_list(self.completion.prompt_ids),
            reply_ids=_as_list(self.completion.reply_ids),
            reasoning=None if self.completion.reasoning is None else encodable(self.completion.reasoning),
        )


def _as_list(ids: Sequence[int] | None) -> list[int] | None:
    return None if ids is None else list(ids)


@dataclass(frozen=True)
class Outcome:
    """What a game leaves in its episode."""

    success: bool
    turns: list[Turn]
    metadata: dict[str, Any]
    """The env's own, as JSON data."""


class Game:
    """One env while it is played: `begin`, then `go_on` while there are asks, then `outcome`; `close` in any case.

    Where these play on, they raise `EnvFault` for whatever goes wrong in the env, but let a ServiceError pass.
    """

    def __init__(
        self, problem: Problem, env_class: type[Env], config: EnvConfig, sandbox: Sandbox, threads: EnvThreads
    ) -> None:
        self.outcome: Outcome
        """Set once there are no asks any more."""
        self._make_env = partial(env_class, problem, config, sandbox)
        self._name = env_class.__name__
        self._episode = episode_id.get(None)
        self._threads = threads
        self._env: Env
        self._play: Play | None = None
        self._is_over = False
        self._exchanges: list[Exchange] = []
        self._num_asked: Counter[str] = Counter()
        self._at_work = threading.Lock()
        self._is_left = False

    async def begin(self) -> list[Ask]:
        """Set the env up and get its first asks; empty if the episode ends at once."""
        return await self._run(self._first)

    async def go_on(self, exchanges: Sequence[Exchange]) -> list[Ask]:
        """Tell the replies to the last asks and get the next ones; empty if the episode is over."""
        self._exchanges += exchanges
        return await self._run(partial(self._step, [e.reply for e in exchanges]))

    async def reference_replies(self, asks: Sequence[Ask]) -> list[str]:
        """What a player who knows the reference answer replies to the last asks. For the gold check alone."""
        return await self._run(lambda: [self._gold(ask) for ask in asks])

    def broken_off(self) -> Outcome:
        """What is left of an episode that ended in a fault: its turns, without a score."""
        return Outcome(False, [e.as_turn(0.0, False) for e in self._exchanges], {})

    async def close(self) -> None:
        """Leave the env. If the episode is not over, its `finally` blocks are run: once it is back, if it is at work.

        What goes wrong in them is logged and changes nothing: the episode is lost or has its outcome.
        """
        if self._is_over:
            return
        try:
            await self._threads.run(self._leave, self._threads.closing_s)
        except Overdue as overdue:
            logger.warning(
                "%s was ended early, and its finally blocks are not done after %g s; they are not waited for\n%s",
                self._name,
                self._threads.closing_s,
                overdue.stack,
            )
        except (EnvFault, ServiceError) as error:
            cause = error.cause if isinstance(error, EnvFault) else error
            where = "".join(traceback.format_tb(cause.__traceback__))  # its own text may quote what a model wrote
            logger.warning(
                "%s was ended early, and its finally blocks failed: %s\n%s", self._name, type(cause).__name__, where
            )

    async def _run(self, action: Callable[[], T]) -> T:
        try:
            return await self._threads.run(partial(self._work, action))
        except Overdue as overdue:
            message = (
                f"{self._name} was not back within env.timeout_s={self._threads.timeout_s:g} s "
                f"(after {len(self._exchanges)} replies); the traceback shows where it was. "
                "Mend what waits for ever, or raise env.timeout_s for what is still to be played; an episode in a "
                "journal is played again once its line is removed."
            )
            raise EnvFault(EnvTimeout(message, overdue.stack)) from None

    # All below is run in threads. Once the env has been left, nobody sees what becomes of it.

    def _work(self, action: Callable[[], T]) -> T:
        self._say_who()
        try:
            with self._at_work:
                return _blaming_the_env(action)
        finally:
            if self._is_left:
                self._leave()

    def _say_who(self) -> None:
        """Have what is logged name this episode: the thread is still at the last one that it worked for."""
        if self._episode is not None:
            episode_id.set(self._episode)

    def _leave(self) -> None:
        """Close the env. If it is at work in another thread, that one does so as soon as it is back."""
        self._say_who()
        self._is_left = True
        play = self._play
        if play is not None and self._at_work.acquire(blocking=False):
            try:
                _blaming_the_env(lambda: play.close())
            finally:
                self._at_work.release()

    def _first(self) -> list[Ask]:
        self._env = self._make_env()
        self._play = self._env.play()
        return self._step(None)

    def _step(self, replies: list[str] | None) -> list[Ask]:
        assert self._play is not None
        try:
            asks = next(self._play) if replies is None else self._play.send(replies)
        except StopIteration:
            self._is_over = True
            self.outcome = self._judge()
            return []
        self._check(asks)
        return asks

    def _check(self, asks: list[Ask]) -> None:
        if not asks or not isinstance(asks, list) or not all(isinstance(ask, Ask) for ask in asks):
            raise TypeError(f"{self._name}.play yielded {asks!r:.100}; wanted a list of asks, at least one")
        for ask in asks:
            self._num_asked[ask.role] += 1  # an env may yield one ask again and again
            if max(self._num_asked[ask.role], ask.turn_idx + 1) > self._env.config.max_turns:
                raise RuntimeError(
                    f"{self._name} asked {ask.role} for more than max_turns={self._env.config.max_turns} turns"
                )
            for message in ask.messages:
                (message["role"] + message["content"]).encode()  # raises for what no request could carry

    def _gold(self, ask: Ask) -> str:
        reply = self._env.gold(ask)
        if not isinstance(reply, str):
            raise TypeError(f"{self._name}.gold returned {reply!r:.100}; wanted the text of a reply")
        return reply

    def _judge(self) -> Outcome:
        if self._env.success is None:
            raise RuntimeError(f"{self._name}.play ended without setting success")
        verdict = bool(self._env.success)
        turns = []
        for exchange in self._exchanges:
            ask = exchange.ask
            success = verdict if ask.success is None else bool(ask.success)
            reward = float(success) if ask.reward is None else float(ask.reward)
            if not math.isfinite(reward):
                raise ValueError(f"the reward of {ask.role}'s turn {ask.turn_idx} is {reward}")
            turns.append(exchange.as_turn(reward, success))
        metadata = json.dumps(self._env.metadata, ensure_ascii=False, allow_nan=False).encode()
        return Outcome(verdict, turns, json.loads(metadata))


def _blaming_the_env(action: Callable[[], T]) -> T:
    """Ctrl-C and cancellation never come to these threads, so whatever is raised is the env's or a service's."""
    try:
        return action()
    except ServiceError:
        raise
    except BaseException as error:
        raise EnvFault(error) from error
