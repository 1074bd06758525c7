"""Collections on a real Ray cluster of two nodes, with S3 and without: whoever dies, every episode is there once."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from tasks.rollout.journal import journals, read_episodes, shard_files
from tasks.rollout.play import max_live_episodes
from tests.flows.ray_cluster import RayCluster, ray_cluster, s3_server
from tests.flows.scripts.unhurried import FREE

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
NUM_EPISODES = 48
MAX_CONCURRENCY = 2
PATIENCE_S = 300

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.scale,
    pytest.mark.skipif(importlib.util.find_spec("prefect_ray") is None, reason="Ray is not installed: make test-scale"),
]


class Asked:
    """What the workers were asked, by the script's own account."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.hold = log.with_name(f"{log.name}.hold")
        """While it is there, each worker plays the beginning of a shard and waits."""

    def lines(self) -> list[tuple[int, str]]:
        """Process and conversation, in order."""
        text = self.log.read_text() if self.log.exists() else ""
        return [(int(pid), conversation) for pid, conversation in map(str.split, text.splitlines())]

    def by_process(self) -> Counter[int]:
        return Counter(pid for pid, _ in self.lines())


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return Asked(tmp_path_factory.mktemp("asked") / "log")


@pytest.fixture(scope="module")
def cluster(s3: dict[str, str], asked: Asked) -> Iterator[RayCluster]:
    environment = {
        **s3,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, SCRIPTS))),
        "UNHURRIED_LOG": str(asked.log),
        "UNHURRIED_S": "0.5",
    }
    with ray_cluster(2, environment) as running:
        yield running


@pytest.fixture
def collect(prefect_server: None, cluster: RayCluster, tmp_path: Path, tiny_model: Path) -> Iterator[Start]:
    """Starts `flows.collect_only` on the cluster, as a user would."""
    from prefect.settings import PREFECT_API_URL

    started: list[Run] = []

    def start(machine: str, **settings: object) -> Run:
        flags = {
            "env.name": "math_env",
            "env.roles": "math_single_agent",
            "env.max_turns": 1,
            "model.path": tiny_model,
            "engine.kind": "scripted",
            "engine.script": "unhurried:reply",
            "engine.max_concurrency": MAX_CONCURRENCY,
            "collect.num_episodes": NUM_EPISODES,
            "collect.only_success": False,
            "collect.runner": "ray",
            "collect.shards": 4,
            "collect.data_dir": tmp_path / machine / "data",
            **settings,
        }
        environment = {
            **cluster.environment,
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "PREFECT_HOME": str(tmp_path / machine / "prefect"),
            "RAY_ADDRESS": cluster.address,
        }
        line = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "flows.collect_only", *line]
        started.append(Run(command, environment, tmp_path / f"{machine}.log"))
        return started[-1]

    yield start
    for run in started:
        run.kill()


class Run:
    """A flow that runs."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)

    def until(self, holds: Callable[[], object]) -> None:
        """Wait until something is so, while it runs."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def finish(self) -> str:
        """Wait for its end. Returns what it said."""
        try:
            self._process.wait(PATIENCE_S)
        finally:
            told = self._log.read_text()
            assert self._process.returncode == 0, told
        return told

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


Start = Callable[..., Run]


def rows(data_dir: Path) -> list[tuple[str, int]]:
    """Problem and rollout of each row of the one data file."""
    [data] = [p for p in data_dir.glob("sft_data_*.jsonl") if not p.name.endswith("_rejected.jsonl")]
    about = [json.loads(line)["metadata"] for line in data.read_text().splitlines()]
    return [(a["problem_hash"], a["rollout_idx"]) for a in about]


def test_with_a_worker_and_a_node_killed_every_episode_is_there_once(
    collect: Start, cluster: RayCluster, asked: Asked, tmp_path: Path
) -> None:
    known = task_runs("collect shard")
    asked.hold.touch()
    run = collect("one", **{"collect.batch": "killed"})
    run.until(lambda: sum(n > FREE for n in asked.by_process().values()) == 2)  # both are in the middle of a shard
    first, second = asked.by_process()
    assert cluster.node_of(first) != cluster.node_of(second)
    lost = psutil.Process(second)
    os.kill(first, signal.SIGKILL)
    run.until(lambda: len(asked.by_process()) == 3)  # what is left of its shard, or another one, is played by a third
    cluster.kill_node(cluster.node_of(second))
    run.until(lambda: not lost.is_running() or lost.status() == psutil.STATUS_ZOMBIE)  # a worker ends with its node
    asked.hold.unlink()
    told = run.finish()
    assert told.count("the rest is played elsewhere") == 2

    [folder] = journals(tmp_path / "one" / "data")
    episodes = read_episodes(folder)
    assert len({e.key for e in episodes}) == len(episodes) == NUM_EPISODES
    assert len(shard_files(folder)) >= 4
    assert len(set(rows(tmp_path / "one" / "data"))) == len(rows(tmp_path / "one" / "data")) == NUM_EPISODES
    assert NUM_EPISODES < len(asked.lines()) <= NUM_EPISODES + 2 * max_live_episodes(MAX_CONCURRENCY)
    assert 4 <= task_runs("collect shard") - known <= 4 + 2, "tasks are shards, never episodes"
    cluster.start_node()


def test_a_killed_run_is_gone_on_with_by_another_machine_without_ray_by_what_is_in_s3(
    collect: Start, asked: Asked, s3: dict[str, str], tmp_path: Path
) -> None:
    before = len(asked.lines())
    settings = {"collect.batch": "stored", "collect.storage": "s3://winnow/some/prefix"}
    run = collect("one", **settings)
    run.until(lambda: len(asked.lines()) - before >= 16)
    run.kill()
    collect("two", **settings, **{"collect.runner": "local", "collect.shards": 1}).finish()

    [folder] = journals(tmp_path / "two" / "data")
    assert len({e.key for e in read_episodes(folder)}) == len(read_episodes(folder)) == NUM_EPISODES
    assert len(set(rows(tmp_path / "two" / "data"))) == len(rows(tmp_path / "two" / "data")) == NUM_EPISODES
    # Twice were asked those that each of two workers was playing when the run was killed.
    assert len(asked.lines()) - before <= NUM_EPISODES + 2 * max_live_episodes(MAX_CONCURRENCY)
    assert objects(s3, f"results/{folder.name}") == {p.name for p in (tmp_path / "two" / "data").glob("sft_data_*")}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if s3["AWS_SECRET_ACCESS_KEY"].encode() in path.read_bytes()]


def task_runs(name: str) -> int:
    """How many task runs with this in their names the server knows."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterName

    with get_client(sync_client=True) as client:
        prefix = TaskRunFilter(name=TaskRunFilterName(like_=name))
        return len(client.read_task_runs(task_run_filter=prefix))


def objects(s3: dict[str, str], folder: str) -> set[str]:
    import s3fs

    fs = s3fs.S3FileSystem(
        endpoint_url=s3["AWS_ENDPOINT_URL"], key=s3["AWS_ACCESS_KEY_ID"], secret=s3["AWS_SECRET_ACCESS_KEY"]
    )
    return {Path(path).name for path in fs.ls(f"winnow/some/prefix/{folder}")}
