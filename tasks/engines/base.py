"""The seam between the rollout loop and whatever answers chat requests."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, TypedDict

logger = logging.getLogger(__name__)

FinishReason = Literal["stop", "length"]
"""stop: the model ended its reply. length: it was cut off, at max_tokens or by whatever else."""


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    max_tokens: int = 512
    min_p: float = 0.0
    """Least probability of a token, as a share of the likeliest one's; applied before top_k and top_p. 0: no limit."""
    stop: tuple[str, ...] = ()
    """Texts that end a reply, which then holds what stands before them."""


@dataclass(frozen=True)
class ChatRequest:
    """One request for one reply."""

    messages: Sequence[Message]
    sampling: Sampling
    seed: int
    """The same request with the same seed gets the same reply, whatever else is asked at the time (up to rounding)."""
    adapter: str | None = None
    """Name of the adapter to apply, as given to the engine; None is the bare model."""
    conversation: str = ""
    """Requests that share it mostly begin alike: where several servers answer, one of them should get them all."""
    held_up: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext, compare=False, repr=False)
    """Entered by the engine while it cannot be at the request at all, e.g. because its server is started again: that
    time counts for nobody's limit. Afterwards the request starts anew.
    """


@dataclass(frozen=True)
class Completion:
    """One reply and why it ended."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    prompt_ids: Sequence[int] | None = None
    reply_ids: Sequence[int] | None = None
    """Token ids of the reply, the end-of-turn token or those of a stop text included, where the engine knows them."""
    reasoning: str | None = None
    """What a server gives as the model's thoughts, apart from its text."""


class EngineError(RuntimeError):
    """The engine failed: an infrastructure fault. It stops the run loudly; a later run resumes."""


class Engine(ABC):
    """Answers chat requests between `start` and `stop`. `async with engine:` does both."""

    name: str
    """Stands in the records as policy_name's owner and in reports: `in_process`, `scripted`, ..."""

    @abstractmethod
    async def start(self) -> None:
        """Load what is needed to answer.

        Raises:
            EngineError: it cannot, with what to do about it.
            ValueError: the model or an adapter is not fit for it, which no second try mends.
        """

    @abstractmethod
    async def generate(self, request: ChatRequest) -> Completion:
        """Answer one request. Many may be awaited at once.

        Raises:
            EngineError: no answer can be had.
        """

    def places(self, max_concurrency: int) -> AbstractAsyncContextManager[Any]:
        """What each request in flight has to hold: never more than `max_concurrency` at once, and fewer where the
        engine finds that more would not be faster. Called once the engine is started.
        """
        return asyncio.Semaphore(max_concurrency)

    @abstractmethod
    async def stop(self) -> None:
        """Free everything that `start` took. Safe to call twice, and after a failed start."""

    async def __aenter__(self) -> Engine:
        try:
            await self.start()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        except EngineError as fault:
            if error is None:
                raise
            logger.warning("%s", fault)  # what went wrong before matters more, and may be its cause
