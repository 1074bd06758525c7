"""Nights that a real scheduler starts: killed, tried again, cancelled, and left behind by a worker that was killed.

The tests are in the order of the nights; each leaves the worker free for the next.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prefect.client.schemas.objects import FlowRun

from docs.prefect_server import prefect_server
from flows.schedule import scheduled_batch
from tasks.rollout.journal import IDENTITY, read_episodes
from tests.deployments.orchestration import PUNCTUAL, Orchestration, are_gone, postgres, postgres_programs, wait_until

pytestmark = pytest.mark.timeout(900)  # the first one waits for a server, its database, and what is deployed there

NIGHTLY = "collect-only/nightly-math"
EPISODES = 24
ENOUGH = 10
"""Replies after which a night is in its middle."""


@pytest.fixture(scope="module")
def database() -> Iterator[dict[str, str]]:
    """The server's setting for PostgreSQL, where that is installed."""
    with postgres() if postgres_programs() else nullcontext() as url:
        yield {"PREFECT_API_DATABASE_CONNECTION_URL": url} if url else {}


@pytest.fixture(scope="module")
def orchestration(tmp_path_factory: pytest.TempPathFactory, database: dict[str, str]) -> Iterator[Orchestration]:
    """A server with a night of prefect.yaml on it, and a worker."""
    with prefect_server(tmp_path_factory.mktemp("server"), **PUNCTUAL, **database) as server:
        found = Orchestration(tmp_path_factory.mktemp("orchestration"), server)
        found.prefect("work-pool", "create", "--type", "process", "local")
        found.prefect("deploy", "--name", "nightly-math", "--prefect-file", "deployments/prefect.yaml")
        found.start_worker()
        try:
            yield found
        finally:
            found.stop_worker()


@pytest.fixture(scope="module")
def data_dir(orchestration: Orchestration, tiny_model: Path) -> Path:
    """Where the nights of this module are collected."""
    folder = orchestration.folder / "sft_data_math-nightly"
    config: dict[str, Any] = {
        "env": {"name": "math_env", "roles": ["math_single_agent"], "max_turns": 1},
        "model": {"path": str(tiny_model)},
        "engine": {"kind": "scripted", "script": "gated:reply", "max_concurrency": 4},
        "collect": {
            **{"num_episodes": EPISODES, "only_success": False, "data_dir": str(folder)},
            "adapter_dir": str(orchestration.folder / "sft_model_math-promoted"),
        },
    }
    orchestration.set_parameters(NIGHTLY, {"config": config})
    return folder


def night_in_its_middle(orchestration: Orchestration, nights_so_far: int) -> FlowRun:
    """A run that the scheduler has started and that waits for its script."""
    orchestration.allow(ENOUGH)
    before = orchestration.asked()
    orchestration.make_due(NIGHTLY)
    wait_until(lambda: orchestration.asked() >= before + ENOUGH + 4)
    run = orchestration.runs(NIGHTLY)[nights_so_far]
    assert run.auto_scheduled and run.state_name == "Running"
    return run


def journal_of(run: FlowRun, data_dir: Path) -> Path:
    folders = [path.parent for path in data_dir.glob(f".episodes/*/{IDENTITY}")]
    (folder,) = [f for f in folders if json.loads((f / IDENTITY).read_text())["batch"] == scheduled_batch(run)]
    return folder


def test_a_night_that_is_killed_and_tried_again_has_each_episode_once(
    orchestration: Orchestration, data_dir: Path
) -> None:
    night = night_in_its_middle(orchestration, 0)

    orchestration.make_due(NIGHTLY)  # a second one while it runs
    wait_until(lambda: len(orchestration.runs(NIGHTLY)) == 2)
    orchestration.wait_for_state(orchestration.runs(NIGHTLY)[1].id, "Cancelled")
    assert orchestration.asked() == ENOUGH + 4

    (process,) = [p for p in orchestration.descendants() if "prefect.engine" in p.cmdline()]
    process.send_signal(signal.SIGKILL)
    orchestration.wait_for_state(night.id, "Crashed")
    # Prefect's runner and then its worker say so; what is tried again between the two is said to have crashed, too.
    wait_until(lambda: orchestration.worker_log().count("Check whether the flow run exceeded its memory") == 2)
    journal = journal_of(night, data_dir)
    assert 0 < len(list(read_episodes(journal))) <= ENOUGH

    orchestration.allow(1000)
    orchestration.prefect("flow-run", "retry", str(night.id))
    orchestration.wait_for_state(night.id, "Completed")
    episodes = list(read_episodes(journal))
    assert Counter(Counter(episode.key for episode in episodes).values()) == {1: EPISODES}
    assert orchestration.asked() <= EPISODES + ENOUGH + 4
    (data,) = data_dir.glob("sft_data_????????_??????.jsonl")
    assert len(data.read_text().splitlines()) == EPISODES


def test_the_next_night_is_a_fresh_one_and_when_it_is_cancelled_nothing_of_it_is_left(
    orchestration: Orchestration, data_dir: Path
) -> None:
    night = night_in_its_middle(orchestration, 2)
    asked = (orchestration.folder / "asked").read_text().split()
    family = orchestration.descendants()
    orchestration.cancel(night.id)
    orchestration.wait_for_state(night.id, "Cancelled")
    wait_until(lambda: are_gone(family), 20)
    fresh = asked[-ENOUGH - 4 :]
    assert not set(fresh) & set(asked[: -ENOUGH - 4]), "each night draws other replies"
    assert len(list(data_dir.glob(f".episodes/*/{IDENTITY}"))) == 2


def test_a_worker_that_is_killed_takes_its_night_along(orchestration: Orchestration, data_dir: Path) -> None:
    night = night_in_its_middle(orchestration, 3)
    family = orchestration.descendants()
    assert family and orchestration.worker is not None
    orchestration.worker.kill()
    wait_until(lambda: are_gone(family), 20)
    orchestration.wait_for_state(night.id, "Crashed")


@pytest.mark.skipif(postgres_programs() is None, reason="needs PostgreSQL; `make test` installs it where it may")
def test_all_of_it_is_in_postgresql(orchestration: Orchestration, database: dict[str, str], data_dir: Path) -> None:
    url = database["PREFECT_API_DATABASE_CONNECTION_URL"].replace("+asyncpg", "")

    async def states() -> dict[str, int]:
        connection = await asyncpg.connect(url)
        try:
            query = "SELECT state_name, count(*) FROM flow_run WHERE start_time IS NOT NULL GROUP BY state_name"
            return {row["state_name"]: row["count"] for row in await connection.fetch(query)}
        finally:
            await connection.close()

    assert asyncio.run(states()) == {"Completed": 1, "Cancelled": 2, "Crashed": 1}
