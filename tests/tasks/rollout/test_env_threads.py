"""Threads that are given up: what they still do harms nobody, and nothing waits for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tasks.rollout import env_threads
from tasks.rollout.env_threads import EnvThreads, Overdue
from tests.tasks.rollout.adding_game import wait_for_ever


def run(actions: list[Callable[[], Any]], max_threads: int, timeout_s: float) -> list[Any]:
    """What came of the actions, started at once; an exception counts as an outcome."""

    async def main() -> list[Any]:
        async with EnvThreads(max_threads, timeout_s) as threads:
            return await asyncio.gather(*(threads.run(action) for action in actions), return_exceptions=True)

    return asyncio.run(main())


def live_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "env"}


def test_an_action_returns_or_raises_as_it_would_at_home() -> None:
    def fail() -> None:
        raise KeyError("gone")

    before = live_threads()
    returned, raised = run([lambda: 7, fail], 2, 10)
    assert returned == 7
    assert isinstance(raised, KeyError)
    assert live_threads() == before


def test_no_more_threads_are_at_work_than_allowed_and_they_are_used_again() -> None:
    at_work: list[int] = []
    seen: set[int] = set()
    most = 0

    def work() -> None:
        nonlocal most
        at_work.append(1)
        most = max(most, len(at_work))
        seen.add(threading.get_ident())
        time.sleep(0.005)
        at_work.pop()

    run([work] * 40, 4, 10)
    assert most == len(seen) == 4


def test_an_overdue_action_says_where_it_is_and_the_others_go_on_as_fast_as_before() -> None:
    began = time.monotonic()
    outcomes = run([*[wait_for_ever] * 6, *[lambda: 1] * 10], 2, 0.1)
    assert time.monotonic() - began < 5
    assert outcomes[6:] == [1] * 10
    assert all(isinstance(outcome, Overdue) for outcome in outcomes[:6])
    assert "in wait_for_ever\n    time.sleep(1)\n" in outcomes[0].stack


def test_waiting_for_a_free_thread_does_not_count() -> None:
    assert run([lambda: time.sleep(0.2)] * 5, 1, 0.5) == [None] * 5


def test_an_outcome_that_comes_while_the_event_loop_is_held_up_is_in_time() -> None:
    async def main() -> int:
        async with EnvThreads(1, 0.2) as threads:
            waiting = asyncio.create_task(threads.run(lambda: time.sleep(0.1) or 7))  # type: ignore[func-returns-value]
            await asyncio.sleep(0.02)
            time.sleep(0.4)
            return await waiting

    assert asyncio.run(main()) == 7


@pytest.mark.filterwarnings("error")  # an exception that ends a thread is but a warning
@pytest.mark.parametrize("keeps_running", [True, False], ids=["during the run", "after it"])
def test_what_comes_back_late_is_dropped_and_its_thread_ends(
    keeps_running: bool, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    done = threading.Event()

    def late() -> int:
        release.wait(30)
        done.set()
        return 1

    async def main() -> int:
        async with EnvThreads(1, 0.1) as threads:
            with pytest.raises(Overdue):
                await threads.run(late)
            if keeps_running:
                release.set()
                await asyncio.to_thread(done.wait, 30)
            return await threads.run(lambda: 2)

    before = live_threads()
    assert asyncio.run(main()) == 2
    release.set()
    for thread in live_threads() - before:
        thread.join(10)
        assert not thread.is_alive()
    assert done.is_set()
    assert not caplog.records


def test_the_end_waits_a_little_for_actions_whose_waiters_were_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_threads, "MAX_CLOSING_S", 0.5)
    finished = []

    def soon_done() -> None:
        time.sleep(0.1)
        finished.append(1)

    async def main() -> None:
        async with EnvThreads(2, 60) as threads:
            waiting = [asyncio.create_task(threads.run(action)) for action in (soon_done, wait_for_ever)]
            await asyncio.sleep(0.02)
            for task in waiting:
                task.cancel()

    began = time.monotonic()
    asyncio.run(main())
    assert finished == [1]
    assert 0.4 < time.monotonic() - began < 5


def test_quick_actions_are_taken_up_by_one_thread_after_the_other() -> None:
    assert len(set(run([threading.get_ident] * 200, 8, 10))) < 8


def test_an_action_does_not_wait_for_one_that_blocks() -> None:
    blocked = threading.Event()
    assert run([lambda: blocked.wait(10), blocked.set], 2, 30) == [True, None]


def test_an_action_that_nobody_waits_for_any_more_is_not_taken_up() -> None:
    begun = []

    async def main() -> None:
        async with EnvThreads(1, 10) as threads:
            first = asyncio.create_task(threads.run(lambda: time.sleep(0.1)))
            second = asyncio.create_task(threads.run(lambda: begun.append(2)))
            await asyncio.sleep(0.02)
            second.cancel()
            await first
            await threads.run(lambda: begun.append(3))

    asyncio.run(main())
    assert begun == [3]


def test_a_thread_whose_waiter_was_cancelled_keeps_no_other_from_work() -> None:
    release = threading.Event()

    async def main() -> int:
        async with EnvThreads(1, 30) as threads:
            stuck = asyncio.create_task(threads.run(lambda: release.wait(30)))
            await asyncio.sleep(0.02)
            stuck.cancel()
            outcome = await threads.run(lambda: 7)
            release.set()
            return outcome

    began = time.monotonic()
    assert asyncio.run(main()) == 7
    assert time.monotonic() - began < 5
