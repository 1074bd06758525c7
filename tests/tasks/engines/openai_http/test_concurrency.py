"""The level of concurrency is found on servers of different kinds, in seconds of a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

import pytest

from tasks.engines.openai_http.concurrency import Places


class Simulation:
    """A server of which `seconds(in_flight)` tells how long a reply takes, and more callers than it has places for."""

    def __init__(self, most: int, first: int, seconds: Callable[[int], float], callers: int = 2000) -> None:
        self.now = 0.0
        self.places = Places(most, first, clock=lambda: self.now)
        self._seconds = seconds
        self._callers = callers
        self.in_flight = 0
        self.most_in_flight = 0
        self.finished = 0
        self.refuses_above: int | None = None

    def run(self, for_s: float) -> float:
        """Let time pass. Returns replies a second in its last half."""
        return asyncio.run(self._run(for_s))

    async def _run(self, for_s: float) -> float:
        until = self.now + for_s
        sleeping: list[tuple[float, int, asyncio.Event]] = []

        async def call() -> None:
            while self.now < until:
                async with self.places:
                    self.in_flight += 1
                    self.most_in_flight = max(self.most_in_flight, self.in_flight)
                    if self.refuses_above is not None and self.in_flight > self.refuses_above:
                        self.places.refused()
                    woken = asyncio.Event()
                    heapq.heappush(sleeping, (self.now + self._seconds(self.in_flight), id(woken), woken))
                    await woken.wait()
                    self.in_flight -= 1
                    self.places.finished(10)
                    self.finished += 1

        calls = [asyncio.create_task(call()) for _ in range(self._callers)]
        finished_by_half = None
        while self.now < until:
            for _ in range(3):
                await asyncio.sleep(0)
            self.now, _, woken = heapq.heappop(sleeping)
            woken.set()
            if finished_by_half is None and self.now >= until - for_s / 2:
                finished_by_half = self.finished
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return (self.finished - (finished_by_half or 0)) / (for_s / 2)


def with_best_level(level: int) -> Callable[[int], float]:
    """A server that takes half a second a reply, and longer once it is asked for more than `level` at once."""
    return lambda in_flight: 0.5 * max(1.0, in_flight / level)


@pytest.mark.parametrize("level", [4, 40, 300])
def test_the_level_grows_to_what_a_server_can_use_and_not_far_beyond(level: int) -> None:
    server = Simulation(most=1000, first=8, seconds=with_best_level(level))
    rate = server.run(60.0)
    assert rate >= 0.9 * level / 0.5
    assert server.most_in_flight <= 8 * level


def test_a_server_that_gets_slower_under_load_is_not_kept_under_it() -> None:
    thrashing = Simulation(most=1024, first=8, seconds=lambda n: 0.5 if n <= 64 else 0.5 * (n / 64) ** 2)
    rate = thrashing.run(60.0)
    assert rate >= 0.85 * 64 / 0.5


def test_never_more_than_the_user_allows() -> None:
    server = Simulation(most=20, first=64, seconds=with_best_level(10_000))
    server.run(20.0)
    assert server.most_in_flight == server.places.limit == 20


def test_refusals_cut_the_level_and_it_then_grows_slowly() -> None:
    server = Simulation(most=1000, first=8, seconds=with_best_level(10_000))
    server.refuses_above = 100
    server.run(120.0)
    assert 60 <= server.places.limit <= 130
    assert server.most_in_flight <= 210


def test_a_burst_of_refusals_counts_once() -> None:
    now = 0.0
    places = Places(100, 100, clock=lambda: now)
    for _ in range(50):
        places.refused()
    assert places.limit >= 1
    first = places.limit
    now = 0.5
    places.refused()
    assert places.limit == first


def test_requests_that_wait_in_the_server_bring_the_level_down_to_those_it_works_at() -> None:
    places = Places(100, 100)
    for _ in range(2):
        places.crowded(running=30, waiting=70)
    assert places.limit == 100  # it may have been a moment after a burst
    places.crowded(running=30, waiting=70)
    assert places.limit == 30
    for _ in range(3):
        places.crowded(running=30, waiting=0)
    assert places.limit == 30


def test_a_cache_that_is_nearly_full_stops_the_growth_until_there_is_room_again() -> None:
    server = Simulation(most=1000, first=64, seconds=with_best_level(10_000))
    server.places.crowded(running=64, waiting=0, cache_share=0.95)
    server.run(60.0)
    assert server.most_in_flight == server.places.limit == 64
    server.places.crowded(running=64, waiting=0, cache_share=0.4)
    server.run(60.0)
    assert server.places.limit == 1000


def test_with_a_full_cache_a_single_request_that_is_set_aside_brings_the_level_down() -> None:
    places = Places(100, 100)
    for _ in range(3):
        places.crowded(running=97, waiting=3, cache_share=0.5)
    assert places.limit == 100
    for _ in range(3):
        places.crowded(running=97, waiting=3, cache_share=0.98)
    assert places.limit == 97


def test_a_window_in_which_places_stayed_free_changes_nothing() -> None:
    server = Simulation(most=1000, first=32, seconds=with_best_level(4), callers=3)
    server.run(30.0)
    assert server.places.limit == 32


def test_places_are_given_in_order_and_one_that_is_no_longer_wanted_goes_to_the_next() -> None:
    async def run() -> list[str]:
        places, order = Places(1, 1), []

        async def hold(name: str) -> None:
            async with places:
                order.append(name)
                await asyncio.sleep(0.01)

        first, gone, last = (asyncio.create_task(hold(name)) for name in ("first", "gone", "last"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(first, last)
        async with asyncio.timeout(1), places:  # nothing is lost to the one that went
            return order

    assert asyncio.run(run()) == ["first", "last"]


def test_a_place_given_to_one_who_is_cancelled_at_that_moment_is_not_lost() -> None:
    async def run() -> None:
        places = Places(1, 1)
        await places.__aenter__()
        waiting = asyncio.create_task(places.__aenter__())
        await asyncio.sleep(0)
        await places.__aexit__()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(1), places:
            pass

    asyncio.run(run())
