"""Threads for code that may never come back: what is overdue is given up, and nothing waits for it.

The standard library's pools would: they never replace a thread, and Python's exit waits for all of theirs. Code that
keeps the GIL for ever, in C, cannot be given up: nothing else runs then, not even the clock.

Most actions take microseconds, and waking a thread costs more than that. So a thread that is awake takes up one action
after the other, and others are only woken if that one does not get on.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

MAX_CLOSING_S = 10.0
PATIENCE_S = 0.001
"""An action that has waited longer is not left to the threads that are awake."""

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
        """Limit for what only tidies up, and may hold up the end of a run. No action has a shorter one."""
        self._max_threads = max_threads
        self._asleep: list[_Thread] = []
        self._awake: set[_Thread] = set()
        self._given_up: set[_Thread] = set()
        """Not back yet. One may have taken up an action more just before it was given up."""
        self._help: asyncio.TimerHandle | None = None
        self._guard: asyncio.TimerHandle | None = None
        self._all_asleep: asyncio.Future[None] | None = None

    async def run(self, action: Callable[[], T], limit_s: float | None = None) -> T:
        """What `action` returns or raises, but no StopIteration. Its time counts from when a thread takes it up.

        Whoever waits may be cancelled: the action goes on, and what it gives is dropped.

        Raises:
            Overdue: it was not back after `limit_s`, or else `timeout_s`. What it gives later is dropped.
        """
        outcome: asyncio.Future[T] = self._loop.create_future()
        now = time.monotonic()
        self._shared.waiting.append(_Action(action, self.timeout_s if limit_s is None else limit_s, now, outcome))
        if not self._awake:
            self._wake(1)
        if self._help is None:
            self._help = self._loop.call_later(PATIENCE_S, self._help_what_waits, now + PATIENCE_S)
        if self._guard is None:
            self._guard = self._loop.call_later(self.closing_s, self._give_up_what_is_overdue)
        return await outcome

    def _wake(self, most: int) -> None:
        """Wake so many threads, as far as there may be more at work."""
        num_free = self._max_threads - sum(thread.is_waited_for for thread in self._awake)
        for _ in range(min(most, num_free)):
            thread = self._asleep.pop() if self._asleep else _Thread(self._shared)
            self._awake.add(thread)
            thread.wake()

    def _help_what_waits(self, due: float) -> None:
        """If those who are awake block, wake a thread for each action that waits.

        If this is not called when it was `due`, it was the event loop that kept them from getting on.
        """
        self._help = None
        now = time.monotonic()
        with suppress(IndexError):  # nothing waits
            if now - self._shared.waiting[0].since > PATIENCE_S:
                self._wake(1 if now - due > PATIENCE_S else len(self._shared.waiting))
            self._help = self._loop.call_later(PATIENCE_S, self._help_what_waits, now + PATIENCE_S)

    def _give_up_what_is_overdue(self) -> None:
        self._guard = None
        self._read_news()
        now = time.monotonic()
        next_due = now + self.closing_s
        for thread in (*self._awake, *self._given_up):
            if (work := thread.work) is None or work.action.outcome.done():
                continue
            if work.due > now:
                next_due = min(next_due, work.due)
            else:
                work.action.outcome.set_exception(Overdue(thread.stack()))
                self._awake.discard(thread)
                self._given_up.add(thread)
                thread.end()
        if self._shared.waiting or self._awake or self._given_up:
            self._guard = self._loop.call_later(next_due - now, self._give_up_what_is_overdue)

    def _read_news(self) -> None:
        """What the threads have to tell."""
        self._shared.is_told = False
        while self._shared.news:
            thread, outcome, result, error = self._shared.news.popleft()
            if outcome is None:
                self._lay_down(thread)
            elif outcome.done():
                pass  # nobody waits any more
            elif error is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(error)
                outcome.exception()  # else asyncio complains of an error that nobody waited for

    def _lay_down(self, thread: _Thread) -> None:
        if thread in self._given_up:
            self._given_up.remove(thread)
            return
        self._awake.remove(thread)
        self._asleep.append(thread)
        if self._shared.waiting:
            self._wake(1)
        elif not self._awake and self._all_asleep is not None and not self._all_asleep.done():
            self._all_asleep.set_result(None)

    async def __aenter__(self) -> EnvThreads:
        self._loop = asyncio.get_running_loop()
        self._shared = _Shared(self._loop, self._read_news)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            if self._awake:
                self._all_asleep = self._loop.create_future()
                await asyncio.wait([self._all_asleep], timeout=self.closing_s)
        finally:
            for timer in filter(None, (self._help, self._guard)):
                timer.cancel()
            for thread in (*self._awake, *self._asleep):
                thread.end()
            for thread in self._asleep:
                thread.join()


@dataclass(frozen=True, slots=True, eq=False)
class _Action:
    call: Callable[[], Any]
    limit_s: float
    since: float
    """When it began to wait for a thread, on `time.monotonic()`."""
    outcome: asyncio.Future[Any]
    """Cancelled if nobody waits for it any more."""


class _Work(NamedTuple):
    """What a thread is at."""

    action: _Action
    due: float


class _Shared:
    """What the event loop and the threads tell each other, without locks: appending and popping are atomic."""

    def __init__(self, loop: asyncio.AbstractEventLoop, read_news: Callable[[], None]) -> None:
        self.waiting: deque[_Action] = deque()
        self.news: deque[tuple[_Thread, asyncio.Future[Any] | None, Any, BaseException | None]] = deque()
        """Outcomes with a result or an error. Without an outcome: the thread goes to sleep."""
        self.is_told = False
        """Whether the event loop will look at the news."""
        self._loop = loop
        self._read_news = read_news

    def tell(
        self, thread: _Thread, outcome: asyncio.Future[Any] | None, result: Any, error: BaseException | None
    ) -> None:
        self.news.append((thread, outcome, result, error))
        if not self.is_told:
            self.is_told = True
            with suppress(RuntimeError):  # it comes so late that the event loop is closed
                self._loop.call_soon_threadsafe(self._read_news)


class _Thread(threading.Thread):
    """A thread that works while something waits, and sleeps until it is woken. Python's exit does not wait for it.

    It has the context variables of when it was started: a context for each action would cost more than most of them do.
    """

    def __init__(self, shared: _Shared) -> None:
        super().__init__(name="env", daemon=True)
        self.work: _Work | None = None
        self._shared = shared
        self._context = copy_context()
        self._has_ended = False
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.start()

    @property
    def is_waited_for(self) -> bool:
        """False if it is at an action whose waiter was cancelled."""
        work = self.work
        return work is None or not work.action.outcome.cancelled()

    def wake(self) -> None:
        self._calls.put(None)

    def end(self) -> None:
        """End the thread: at once if it sleeps, else once it is back."""
        self._has_ended = True
        self._calls.put(None)

    def stack(self) -> str:
        """Where the thread is now, the most recent call last."""
        assert self.ident is not None
        return "".join(traceback.format_stack(sys._current_frames()[self.ident]))

    def run(self) -> None:
        self._context.run(self._take_up)

    def _take_up(self) -> None:
        self._calls.get()
        while not self._has_ended:
            while not self._has_ended and self._act_once():
                pass
            self._shared.tell(self, None, None, None)
            self._calls.get()

    def _act_once(self) -> bool:
        """A function of its own, so that nothing of an action is kept alive while the next is waited for."""
        try:
            action = self._shared.waiting.popleft()
        except IndexError:
            return False
        if action.outcome.cancelled():
            return True
        self.work = _Work(action, time.monotonic() + action.limit_s)
        try:
            result, error = action.call(), None
        except BaseException as raised:
            result, error = None, raised
        self.work = None
        self._shared.tell(self, action.outcome, result, error)
        return True
