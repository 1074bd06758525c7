"""How many requests are in flight at once: found while running, never more than the user allows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)

WINDOW_S = 0.5
"""Least time over which throughput is measured."""
GAIN = 1.05
"""More places are worth having if they bring this much more throughput."""
_STRIKES = 2
"""Windows without a gain before they count as such: one may have had longer replies than the last."""
_HOLD_WINDOWS = 30
"""After so many windows another level is tried: the work may have changed."""
_CUT = 0.7
"""What is left of the level when a server turns a request away."""
_CUT_EVERY_S = 1.0
"""A burst of refusals is one piece of news."""
_CROWDED_SHARE = 0.1
"""More requests waiting in the server than this share of those that it works at: it has enough."""
_CROWDED_LOOKS = 3
"""If they do so at as many looks in a row: just after a burst they always do."""
_FULL_CACHE = 0.9
"""A server whose cache of keys and values is in use to this share gets no more: once it is full, a server sets requests
aside, and later reads them again from their beginning.
"""


class Places:
    """Places for requests in flight, held by `async with`. First come, first served.

    Their number doubles while that brings more tokens a second, stays where it does not, is cut when the server turns
    requests away, as TCP's congestion control does, and then grows by one in twenty.
    """

    def __init__(self, most: int, first: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`first`: how many there are in the beginning."""
        self.limit = max(1, min(most, first))
        self._most = most
        self._clock = clock
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_climbing = True
        self._was_refused = False
        """Whether the server has ever turned one away: from then on steps are small."""
        self._good = self.limit
        self._good_rate = 0.0
        self._strikes = 0
        self._held = 0
        self._crowded_looks = 0
        self._is_cache_full = False
        self._last_cut = -_CUT_EVERY_S
        self._start_window()

    async def __aenter__(self) -> None:
        if self._taken < self.limit and not self._waiting:
            self._taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had been given the place already
                self._leave()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        self._leave()

    def finished(self, tokens: int) -> None:
        """A reply of so many tokens has come."""
        self._tokens += max(tokens, 1)
        self._replies += 1
        elapsed_s = self._clock() - self._began
        if elapsed_s >= WINDOW_S and self._replies >= self.limit:
            if not self._had_room:  # else fewer were in flight than might have been, and it tells nothing
                self._judge(self._tokens / elapsed_s)
            self._start_window()

    def refused(self) -> None:
        """The server has turned a request away because there are too many."""
        if self._clock() - self._last_cut < _CUT_EVERY_S:
            return
        self._last_cut = self._clock()
        self._was_refused = True
        self._settle(max(1, int(min(self.limit, max(self._taken, 1)) * _CUT)), "the server turns requests away")

    def crowded(self, running: int, waiting: int, cache_share: float = 0.0) -> None:
        """The server works at `running` requests, and `waiting` more wait in it or were set aside. `cache_share`: how
        much of its cache of keys and values is in use. While that is nearly all, there are no more places.
        """
        self._is_cache_full = cache_share >= _FULL_CACHE
        waiting_share = 0.0 if self._is_cache_full else _CROWDED_SHARE
        is_crowded = waiting > waiting_share * running and 0 < running < self.limit
        self._crowded_looks = self._crowded_looks + 1 if is_crowded else 0
        if self._crowded_looks >= _CROWDED_LOOKS:
            self._crowded_looks = 0
            self._settle(running, "more only wait in the server")

    def _judge(self, rate: float) -> None:
        """What a window at the present level says. `rate`: tokens a second."""
        if not self._is_climbing:
            self._good_rate += (rate - self._good_rate) / 4
            self._held += 1
            if self._was_refused:
                self._step(self.limit + max(1, self.limit // 20))
            elif self._held >= _HOLD_WINDOWS:
                self._climb()
        elif rate >= GAIN * self._good_rate:
            self._good, self._good_rate, self._strikes = self.limit, rate, 0
            self._climb()
        else:
            self._strikes += 1
            if self._strikes >= _STRIKES:
                self._settle(self._good, "more bring no more")

    def _climb(self) -> None:
        self._is_climbing, self._strikes, self._held = True, 0, 0
        self._good = self.limit
        self._step(self.limit * 2)

    def _settle(self, limit: int, why: str) -> None:
        if limit < self.limit:
            logger.info("%d requests in flight instead of %d: %s", limit, self.limit, why)
        self.limit = self._good = limit
        self._is_climbing, self._strikes, self._held = False, 0, 0
        self._start_window()

    def _step(self, limit: int) -> None:
        if self._is_cache_full:
            self._settle(self.limit, "the server's cache is full")
            return
        self.limit = min(limit, self._most)
        self._hand_on()

    def _start_window(self) -> None:
        self._began = self._clock()
        self._tokens = self._replies = 0
        self._had_room = False

    def _leave(self) -> None:
        self._taken -= 1
        self._hand_on()
        self._had_room = self._had_room or self._taken < self.limit

    def _hand_on(self) -> None:
        while self._waiting and self._taken < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
