"""A collection on one Ray worker and on two, with an engine that only takes time; and what a shard costs besides.

    make test-scale    (it installs Ray)
    python tests/benchmarks/scaling.py

Everything runs on this machine: two nodes of Ray on loopback with a CPU each, and a Prefect server.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

import flows  # noqa: F401  (its settings come before the first import of Prefect)

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests/flows/scripts"
NUM_EPISODES, NUM_SHARDS, MAX_CONCURRENCY, REPLY_S = 480, 12, 8, 4.0
FEW_SHARDS, MANY_SHARDS = 2, 22
NUM_RUNS = 2


class Measured(NamedTuple):
    """Seconds."""

    command_s: float
    """The whole command."""
    collect_s: float
    """Its collecting, from connecting to Ray to the last shard's end."""
    first_s: float
    """Until the first shard began to run."""
    shards_s: float
    """From the first shard's beginning to the last one's end."""


def main() -> None:
    from prefect.testing.utilities import prefect_test_harness

    from tests.flows.ray_cluster import ray_cluster

    with tempfile.TemporaryDirectory() as folder, prefect_test_harness(server_startup_timeout=120):
        environment = {
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, SCRIPTS))),
            "UNHURRIED_LOG": f"{folder}/log",
            "UNHURRIED_S": str(REPLY_S),
            "RAY_worker_niceness": "0",
        }
        by_workers: dict[int, list[Measured]] = {}
        for workers in (1, 2):
            with ray_cluster(workers, environment) as cluster:
                for run in range(NUM_RUNS):
                    name = f"{workers}-{run}"
                    found = measure(cluster, Path(folder) / name, NUM_EPISODES, NUM_SHARDS, name)
                    by_workers.setdefault(workers, []).append(found)
                    told = ", ".join(f"{field} {seconds:.1f}" for field, seconds in found._asdict().items())
                    print(f"{workers} workers, {NUM_EPISODES / found.shards_s:.2f} episodes/s: {told}", flush=True)
        with ray_cluster(1, {**environment, "UNHURRIED_S": "0"}) as cluster:
            few, many = (
                [measure(cluster, Path(folder) / f"{n}x{run}", n, n, f"{n}x{run}").shards_s for run in range(NUM_RUNS)]
                for n in (FEW_SHARDS, MANY_SHARDS)
            )
    for what in ("command_s", "collect_s", "shards_s"):
        one, two = (statistics.median(getattr(m, what) for m in by_workers[n]) for n in (1, 2))
        print(f"{what}, median: one worker {one:.1f}, two {two:.1f}: {one / two:.2f} x")
    print(f"the least possible: one worker {ideal_s(1):.1f}, two {ideal_s(2):.1f}")
    costs = [(m - f) / (MANY_SHARDS - FEW_SHARDS) for m, f in zip(many, few, strict=True)]
    print(f"a shard of one episode that is answered at once takes its worker {statistics.median(costs):.2f} s")


def ideal_s(workers: int) -> float:
    rounds = -(-NUM_EPISODES // NUM_SHARDS // MAX_CONCURRENCY)
    return NUM_SHARDS * rounds * REPLY_S / workers


def measure(cluster: object, folder: Path, num_episodes: int, num_shards: int, batch: str) -> Measured:
    from prefect.settings import PREFECT_API_URL

    from tests.flows.ray_cluster import RayCluster

    assert isinstance(cluster, RayCluster)
    flags = {
        "env.name": "math_env",
        "env.roles": "math_single_agent",
        "env.max_turns": 1,
        "model.path": "starter",
        "engine.kind": "scripted",
        "engine.script": "unhurried:reply",
        "engine.max_concurrency": MAX_CONCURRENCY,
        "collect.num_episodes": num_episodes,
        "collect.only_success": False,
        "collect.runner": "ray",
        "collect.shards": num_shards,
        "collect.batch": batch,
        "collect.data_dir": folder / "data",
    }
    environment = {
        **cluster.environment,
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PREFECT_HOME": str(folder / "prefect"),
        "RAY_ADDRESS": cluster.address,
    }
    line = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    began = time.monotonic()
    command = [sys.executable, "-m", "flows.collect_only", *line]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return _of_the_server(time.monotonic() - began, num_shards)


def _of_the_server(command_s: float, num_shards: int) -> Measured:
    """What Prefect knows of the newest collection."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort

    deadline = time.monotonic() + 30
    while True:
        with get_client(sync_client=True) as client:
            [run] = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
            of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
            runs = client.read_task_runs(flow_run_filter=of_run, sort=TaskRunSort.NAME_ASC, limit=200)
        shards = [r for r in runs if r.name.startswith("collect shard") and r.end_time and r.start_time]
        whole = [r for r in runs if r.name.startswith("collect ") and r not in shards and r.end_time]
        if len(shards) == num_shards and whole:
            break
        assert time.monotonic() < deadline, [r.name for r in runs]
        time.sleep(0.5)
    [collect] = whole
    first, last = min(r.start_time for r in shards), max(r.end_time for r in shards)
    return Measured(
        command_s,
        (collect.end_time - collect.start_time).total_seconds(),
        (first - collect.start_time).total_seconds(),
        (last - first).total_seconds(),
    )


if __name__ == "__main__":
    main()
