"""The time that one episode may take, other episodes left out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any


class EpisodeTimeout(Exception):
    """An episode took longer than it may."""


class EpisodeClock:
    """Ends what is played inside `async with` when it has taken `limit_s` seconds.

    It starts when the first request is sent. It stands still while all that the episode does is wait for places, or for
    a server that is started again, which is the fault of others; a request that hangs in its place does not stop it,
    even if a second one waits.
    """

    def __init__(self, limit_s: float, free: AbstractAsyncContextManager[Any]) -> None:
        """`free`: the places, of which each request in flight holds one."""
        self.places = _WatchedPlaces(free, self)
        """The same places, to be used in their stead."""
        self._limit_s = self._left_s = limit_s
        self._waiting = self._in_flight = 0
        self._timeout = asyncio.timeout(None)

    def count(self, waiting: int = 0, in_flight: int = 0) -> None:
        """So many more requests wait for a place, or hold one."""
        self._waiting += waiting
        self._in_flight += in_flight
        if self._timeout.expired():
            return
        now, ends = asyncio.get_running_loop().time(), self._timeout.when()
        stands_still = self._waiting > 0 and not self._in_flight
        if stands_still and ends is not None:
            self._left_s = ends - now
            self._timeout.reschedule(None)
        elif not stands_still and ends is None:
            self._timeout.reschedule(now + self._left_s)

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """While a request that holds a place waits for its server."""
        self.count(waiting=1, in_flight=-1)
        try:
            yield
        finally:
            self.count(waiting=-1, in_flight=1)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises EpisodeTimeout if it was this that ended what was inside."""
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise EpisodeTimeout(
                f"the episode was not over within engine.episode_timeout_s={self._limit_s:g} s; raise it for what is "
                "still to be played, or lower collect.max_tokens or env.max_turns; an episode in a journal is played "
                "again once its line is removed."
            ) from None


class _WatchedPlaces(AbstractAsyncContextManager[Any]):
    """Places, and a clock that is told who waits for one and who has one."""

    def __init__(self, free: AbstractAsyncContextManager[Any], clock: EpisodeClock) -> None:
        self._free = free
        self._clock = clock

    async def __aenter__(self) -> Any:
        self._clock.count(waiting=1)
        try:
            place = await self._free.__aenter__()
        except BaseException:
            self._clock.count(waiting=-1)
            raise
        self._clock.count(waiting=-1, in_flight=1)
        return place

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._clock.count(in_flight=-1)
        return await self._free.__aexit__(kind, error, traceback)
