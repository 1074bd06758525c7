"""Figures as a real receiver of OTLP gets them, beside what the journal says."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from envs.base import Env, EnvConfig
from tasks.engines.base import ChatRequest, EngineError
from tasks.engines.scripted import ScriptedEngine
from tasks.observing import figures
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode
from tasks.rollout.journal import Journal, read_episodes
from tasks.rollout.play import play_owed
from tasks.rollout.progress import Silent
from tasks.training.job import TrainProgress
from tests.tasks.rollout.adding_game import AddingGame, NoSandbox, RaisingGame
from tests.tasks.rollout.playing import IDENTITY, answer_or_not, plan

metrics_service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
Latest = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""The last value of each figure, by its name and attributes."""


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Latest]:
    """What a receiver on this machine was sent, which is where figures go."""
    latest: Latest = {}

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            take_in(metrics_service.ExportMetricsServiceRequest.FromString(body), latest)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield latest
    if provider := figures._provider():
        provider.shutdown()
    forget()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def forget_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in figures.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    forget()


def forget() -> None:
    figures._provider.cache_clear()
    figures._instruments.cache_clear()


def take_in(request: Any, latest: Latest) -> None:
    for resource in request.resource_metrics:
        names = {a.key: a.value.string_value for a in resource.resource.attributes}
        assert names["service.name"] == "winnow"
        for metric in (m for scope in resource.scope_metrics for m in scope.metrics):
            for point in getattr(metric, metric.WhichOneof("data")).data_points:
                attributes = frozenset((a.key, a.value.string_value) for a in point.attributes)
                latest[metric.name, attributes] = point.as_double or point.as_int


def of(latest: Latest, name: str) -> dict[frozenset[tuple[str, str]], float]:
    return {attributes: value for (metric, attributes), value in latest.items() if metric == name}


def key(**attributes: str) -> frozenset[tuple[str, str]]:
    return frozenset((name.replace("_", "."), value) for name, value in attributes.items())


async def play(env_class: type[Env], folder: Path, reply: Any = answer_or_not) -> list[Episode]:
    async with figures.watched(ScriptedEngine(reply)) as engine:
        with Journal.open(folder, IDENTITY) as journal:
            await play_owed(
                plan(20, 2),
                env_class=env_class,
                env_config=EnvConfig(name="adding_env"),
                sandbox=NoSandbox(),
                engine=engine,
                journal=journal,
                collect=CollectConfig(max_error_rate=1.0),
                max_concurrency=4,
                timeout_s=10.0,
                progress=figures.counted(Silent()),
            )
    return read_episodes(folder)


@pytest.mark.parametrize("env_class", [AddingGame, RaisingGame])
def test_figures_equal_what_the_journal_holds(env_class: type[Env], received: Latest, tmp_path: Path) -> None:
    episodes = asyncio.run(play(env_class, tmp_path))
    states = Counter("errored" if e.error else "solved" if e.success else "unsolved" for e in episodes)
    assert len(states) > (env_class is AddingGame)
    expected: Mapping[str, Mapping[str, int]] = {
        "winnow.episodes": {key(env="adding_env", outcome=state): count for state, count in states.items()},
        "winnow.tokens": {
            key(env="adding_env", type="prompt"): sum(t.prompt_tokens for e in episodes for t in e.turns),
            key(env="adding_env", type="completion"): sum(t.completion_tokens for e in episodes for t in e.turns),
        },
        "winnow.episode.errors": {
            key(env="adding_env", error_type=kind): count
            for kind, count in Counter(e.error.kind for e in episodes if e.error).items()
        },
        "winnow.requests.in_flight": {key(): 0},
    }
    assert {name: of(received, name) for name in expected} == expected


def test_a_request_that_fails_is_counted_by_its_class(received: Latest, tmp_path: Path) -> None:
    def fail(request: ChatRequest) -> str:
        raise EngineError("the server is gone")

    with pytest.raises(EngineError):
        asyncio.run(play(AddingGame, tmp_path, fail))
    (failures,) = of(received, "winnow.request.errors").items()
    assert failures[0] == key(error_type="EngineError")
    assert failures[1] >= 1


def test_training_tells_steps_tokens_loss_and_speed_when_it_is_over(received: Latest) -> None:
    seen = []
    tell = figures.counted_training(seen.append)
    for step, loss in ((1, 2.0), (2, 1.5)):
        facts = {"learning_rate": 1e-4, "grad_norm": 1.0, "trained_tokens": 10, "epoch": step / 2}
        tell(TrainProgress(step=step, total_steps=2, loss=loss, tokens=300, seconds=1.5, **facts))
    assert len(seen) == 2
    found = {name: value for (name, _), value in received.items() if name.startswith("winnow.training")}
    assert found == {
        "winnow.training.steps": 2,
        "winnow.training.tokens": 600,
        "winnow.training.loss": 1.5,
        "winnow.training.tokens_per_second": 200,
    }


def test_without_an_endpoint_nothing_stands_in_the_way() -> None:
    engine, progress = ScriptedEngine(answer_or_not), Silent()
    assert figures.watched(engine) is engine
    assert figures.counted(progress) is progress
    assert figures.counted_training(print) is print
