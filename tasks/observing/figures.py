"""Figures for those who watch runs from elsewhere, sent by OTLP where OTEL_EXPORTER_OTLP_ENDPOINT says so.

They are pushed, not scraped: a batch run ends, and what it counted last would never be asked for. Without an endpoint
nothing is counted, and the packages that send are not even imported.

    winnow.episodes             finished ones, by env and outcome: solved, unsolved, errored
    winnow.episode.errors       those that errored, by env and error.type
    winnow.tokens               of finished episodes, by env and type: prompt, completion
    winnow.requests.in_flight   requests that engines are at
    winnow.request.errors       requests that failed, by error.type
    winnow.training.steps, .tokens, .loss, .tokens_per_second
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import TYPE_CHECKING, Any

from tasks.engines.base import ChatRequest, Completion, Engine
from tasks.rollout.episode import Episode
from tasks.rollout.progress import Progress, Silent, Tee

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider

    from tasks.training.job import TrainEvent

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PATIENCE_S = 3
"""How long a run waits at most, at the end of a step, for somebody to take its figures, unless the environment says."""


@cache
def _provider() -> MeterProvider | None:
    """What collects and sends, until this process ends; None where nobody is to be told."""
    if not any(os.environ.get(name) for name in ENDPOINTS) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
    except ImportError:
        logger.warning("%s is set, but figures cannot be sent: pip install -e '.[otel]', or unset it", ENDPOINTS[1])
        return None
    own = {"service.instance.id": uuid.uuid4().hex}  # else two processes' counts would be taken for one's
    if not os.environ.get("OTEL_SERVICE_NAME"):
        own["service.name"] = "winnow"
    timeout_s = None if os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT") else PATIENCE_S
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(timeout=timeout_s))
    return MeterProvider([reader], Resource.create(own))


@cache
def _instruments() -> _Instruments | None:
    provider = _provider()
    return None if provider is None else _Instruments(provider)


class _Instruments:
    """What is counted."""

    def __init__(self, provider: MeterProvider) -> None:
        self.flush = provider.force_flush
        """Send what was counted until now: a process may be killed once its work is done."""
        meter = provider.get_meter("winnow")
        self.episodes = meter.create_counter("winnow.episodes", "{episode}", "Episodes that are on disk")
        self.errors = meter.create_counter("winnow.episode.errors", "{episode}", "Episodes that ended in an error")
        self.tokens = meter.create_counter("winnow.tokens", "{token}", "Tokens of episodes that are on disk")
        self.in_flight = meter.create_up_down_counter("winnow.requests.in_flight", "{request}", "Requests at an engine")
        self.failures = meter.create_counter("winnow.request.errors", "{request}", "Requests that failed")
        self.steps = meter.create_counter("winnow.training.steps", "{step}", "Training steps")
        self.trained = meter.create_counter("winnow.training.tokens", "{token}", "Tokens read in training")
        self.loss = meter.create_gauge("winnow.training.loss", "nat", "Mean over a step's trained tokens")
        self.speed = meter.create_gauge("winnow.training.tokens_per_second", "{token}/s", "Of a step")


def counted(progress: Progress) -> Progress:
    """The same progress which, where somebody is to be told, counts the episodes too."""
    instruments = _instruments()
    return progress if instruments is None else Tee(progress, _EpisodeCounts(instruments))


def watched(engine: Engine) -> Engine:
    """The same engine which, where somebody is to be told, counts its requests, and sends the figures when it stops."""
    instruments = _instruments()
    return engine if instruments is None else _WatchedEngine(engine, instruments)


def counted_training(tell: Callable[[TrainEvent], None]) -> Callable[[TrainEvent], None]:
    """The same listener which, where somebody is to be told, counts the steps too."""
    instruments = _instruments()
    if instruments is None:
        return tell

    def told(event: TrainEvent) -> None:
        tell(event)
        if event.kind == "step":
            instruments.steps.add(1)
            instruments.trained.add(event.tokens)
            instruments.loss.set(event.loss)
            instruments.speed.set(event.tokens / event.seconds)
            if event.step == event.total_steps:
                instruments.flush()

    return told


class _EpisodeCounts(Silent):
    """Counts an episode once it is on disk, so that figures and journals agree."""

    def __init__(self, instruments: _Instruments) -> None:
        self._count = instruments

    def episode_finished(self, episode: Episode) -> None:
        env = episode.env_name
        outcome = "errored" if episode.error else "solved" if episode.success else "unsolved"
        self._count.episodes.add(1, {"env": env, "outcome": outcome})
        if episode.error:
            self._count.errors.add(1, {"env": env, "error.type": episode.error.kind})
        for kind in ("prompt", "completion"):
            number = sum(getattr(turn, f"{kind}_tokens") for turn in episode.turns)
            self._count.tokens.add(number, {"env": env, "type": kind})


class _WatchedEngine(Engine):
    def __init__(self, engine: Engine, instruments: _Instruments) -> None:
        self.name = engine.name
        self._engine = engine
        self._count = instruments

    async def start(self) -> None:
        await self._engine.start()

    async def generate(self, request: ChatRequest) -> Completion:
        self._count.in_flight.add(1)
        try:
            return await self._engine.generate(request)
        except Exception as error:
            self._count.failures.add(1, {"error.type": type(error).__name__})
            raise
        finally:
            self._count.in_flight.add(-1)

    def places(self, max_concurrency: int) -> AbstractAsyncContextManager[Any]:
        return self._engine.places(max_concurrency)

    async def stop(self) -> None:
        await self._engine.stop()
        await asyncio.to_thread(self._count.flush)
