"""Threads for code that may never come back: what is overdue is given up, and nothing waits for it.

The standard library's pools would: they never replace a thread, and Python's exit waits for all of theirs. Code that
keeps the GIL for ever, in C, cannot be given up: nothing else runs then, not even the clock.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

MAX_CLOSING_S = 10.0

T = TypeVar("T")


class Overdue(Exception):
    """An action was not back in time. `stack` is where its thread was then, the most recent call last."""

    def __init__(self, stack: str) -> None:
        super().__init__(stack)
        self.stack = stack


class EnvThreads:
    """Runs blocking actions off the event loop, inside `async with`. For one event loop.

    At its end, actions that still run (their waiters were cancelled) have `closing_s` more; then they are left behind.
    """

    def __init__(self, max_threads: int, timeout_s: float) -> None:
        """At most `max_threads` actions run at once, those that were given up not counted, each for `timeout_s`."""
        self.timeout_s = timeout_s
        self.closing_s = min(timeout_s, MAX_CLOSING_S)
        """Limit for what only tidies up, and may hold up the end of a run."""
        self._free = asyncio.Semaphore(max_threads)
        self._idle: list[_Thread] = []
        self._busy: dict[asyncio.Future[Any], _Thread] = {}

    async def run(self, action: Callable[[], T], limit_s: float | None = None) -> T:
        """What `action` returns or raises, but no StopIteration. Its time counts from when a thread takes it up.

        Whoever waits may be cancelled: the action goes on, and what it gives is dropped.

        Raises:
            Overdue: it was not back after `limit_s`, or else `timeout_s`. What it gives later is dropped.
        """
        async with self._free:
            thread = self._idle.pop() if self._idle else _Thread()
            outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            self._busy[outcome] = thread
            thread.take_up(action, outcome, self._settle)
            # Not asyncio.timeout, which would drop an outcome that comes while the event loop is held up.
            await asyncio.wait([outcome], timeout=self.timeout_s if limit_s is None else limit_s)
            if outcome.done():
                return outcome.result()
            stack = thread.stack()
            self._give_up(outcome)
            raise Overdue(stack)

    def _settle(self, outcome: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        if outcome.cancelled():
            return
        self._idle.append(self._busy.pop(outcome))
        if error is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(error)
            outcome.exception()  # else asyncio complains of an error that nobody waited for

    def _give_up(self, outcome: asyncio.Future[Any]) -> None:
        outcome.cancel()
        self._busy.pop(outcome).end()

    async def __aenter__(self) -> EnvThreads:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            if self._busy:
                await asyncio.wait(self._busy, timeout=self.closing_s)
        finally:
            for outcome in list(self._busy):
                self._give_up(outcome)
            for thread in self._idle:
                thread.end()
            for thread in self._idle:
                thread.join()


class _Thread(threading.Thread):
    """A thread for one action after the other. Python's exit does not wait for it."""

    def __init__(self) -> None:
        super().__init__(name="env", daemon=True)
        self._actions: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.start()

    def take_up(
        self,
        action: Callable[[], T],
        outcome: asyncio.Future[T],
        settle: Callable[[asyncio.Future[T], T | None, BaseException | None], None],
    ) -> None:
        """Run `action`, then have the event loop call `settle` with what it returned or raised."""

        def act() -> None:
            try:
                result = action()
            except BaseException as error:
                tell(None, error)
            else:
                tell(result, None)

        def tell(result: T | None, error: BaseException | None) -> None:
            with suppress(RuntimeError):  # it comes so late that the event loop is closed
                outcome.get_loop().call_soon_threadsafe(settle, outcome, result, error)

        self._actions.put(act)

    def end(self) -> None:
        """End the thread once it has no action left."""
        self._actions.put(None)

    def stack(self) -> str:
        """Where the thread is now, the most recent call last."""
        assert self.ident is not None
        return "".join(traceback.format_stack(sys._current_frames()[self.ident]))

    def run(self) -> None:
        while self._act_once():
            pass

    def _act_once(self) -> bool:
        """A function of its own, so that nothing of an action is kept alive while the next is waited for."""
        act = self._actions.get()
        if act is not None:
            act()
        return act is not None
