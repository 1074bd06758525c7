"""What starts and stops an engine tells of the fault that came first."""

from __future__ import annotations

import asyncio

import pytest

from tasks.engines.base import EngineError
from tasks.engines.scripted import ScriptedEngine


class Clinging(ScriptedEngine):
    """It may not start, and never gives back what it took."""

    def __init__(self, starts: bool) -> None:
        super().__init__(lambda request: "1")
        self._starts = starts

    async def start(self) -> None:
        if not self._starts:
            raise EngineError("it did not start")

    async def stop(self) -> None:
        raise EngineError("it holds memory still")


async def run(engine: Clinging, fault: Exception | None = None) -> None:
    async with engine:
        if fault is not None:
            raise fault


def test_a_stop_that_fails_does_not_hide_what_failed_before_it(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EngineError, match="it did not start"):
        asyncio.run(run(Clinging(starts=False)))
    with pytest.raises(EngineError, match="no reply"):
        asyncio.run(run(Clinging(starts=True), EngineError("no reply")))
    assert caplog.text.count("it holds memory still") == 2


def test_a_stop_that_fails_by_itself_fails_the_run() -> None:
    with pytest.raises(EngineError, match="it holds memory still"):
        asyncio.run(run(Clinging(starts=True)))
