"""Prefect task: play one shard of a collection, on a worker of a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import logging
import signal
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL

from envs.faults import ServiceError
from tasks.engines.config import EngineConfig
from tasks.rollout.artifact import Ref
from tasks.rollout.collection import Collection, PlayConfig
from tasks.rollout.shards import ShardJob

if TYPE_CHECKING:
    from prefect_ray import RayTaskRunner
    from prefect_ray.task_runners import PrefectRayFuture


logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 60.0


class WorkerLost(ServiceError):
    """The process that played a shard has ended, or its node has."""


@task(
    name="collect-shard",
    task_run_name="collect {job.name}: {job.num_episodes} episodes of {config.env.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=0,  # whatever PREFECT_TASKS_DEFAULT_RETRIES says: a shard has one writer
)
def collect_shard(
    config: PlayConfig,
    adapters: Mapping[str, Ref],
    left_out: frozenset[str],
    data_dir: Path,
    started_in: Path,
    job: ShardJob,
) -> None:
    """Play the episodes of one shard.

    It is never tried again by Prefect or Ray, under the same name: what is left of it becomes a shard of another name.

    Args:
        started_in: the working directory of the run; relative paths in the config are seen from there.
    """
    with contextlib.chdir(started_in) if started_in.is_dir() else contextlib.nullcontext():
        here = {policy: type(ref).model_validate(ref.model_dump()) for policy, ref in adapters.items()}
        Collection.for_training(config, here, left_out).play_shard(job, data_dir)


def check_ray() -> None:
    """See that shards can be sent to Ray workers, and that these can tell a server how it went.

    Raises:
        ValueError: they cannot.
    """
    if importlib.util.find_spec("prefect_ray") is None:
        raise ValueError("collect.runner: found ray, but prefect-ray is not installed; pip install -e '.[scale]'")
    if not PREFECT_API_URL.value():
        raise ValueError(
            "collect.runner: found ray without a Prefect server that its workers could reach; run `prefect server "
            "start --host ADDRESS` and export PREFECT_API_URL=http://ADDRESS:4200/api"
        )


@contextlib.contextmanager
def ray_workers(
    config: PlayConfig, adapters: Mapping[str, Ref], left_out: frozenset[str], data_dir: Path
) -> Iterator[RayWorkers]:
    """The workers of the Ray cluster that is there. What they still play at the end is stopped.

    Raises:
        ValueError: there is no cluster, or it lacks the GPUs, or its nodes cannot reach the Prefect server.
    """
    check_ray()
    import ray
    from prefect_ray import RayTaskRunner

    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address="auto", namespace="winnow", log_to_driver=True)
    except ConnectionError as error:
        raise ValueError(
            "collect.runner: found ray, but no Ray cluster; start one with `ray start --head`, or name one by "
            "RAY_ADDRESS"
        ) from error
    if signal.getsignal(signal.SIGTERM) is not on_sigterm:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own would hide from Prefect that the run is cancelled
    try:
        nodes: list[dict[str, Any]] = ray.nodes()
        check_server_is_in_reach(
            PREFECT_API_URL.value() or "", [node["NodeManagerAddress"] for node in nodes if node["Alive"]]
        )
        num_gpus = gpus_of_a_shard(
            config.engine, max(node["Resources"].get("GPU", 0) for node in nodes if node["Alive"])
        )
        if not has_room(nodes, num_gpus):
            raise ValueError(
                f"collect.runner: no node of the Ray cluster has a CPU and {num_gpus} GPUs, which a shard takes; start "
                "them with ray start --num-cpus"
            )
        with RayTaskRunner() as runner:
            arguments = {"config": config, "adapters": adapters, "left_out": left_out, "data_dir": data_dir}
            yield RayWorkers(runner, {**arguments, "started_in": Path.cwd()}, num_gpus)
    finally:
        ray.shutdown()


class RayWorkers:
    """Plays shards on a Ray cluster; see `tasks.rollout.shards.Workers`."""

    def __init__(self, runner: RayTaskRunner[Any], arguments: dict[str, Any], num_gpus: int) -> None:
        self._runner, self._arguments, self._num_gpus = runner, arguments, num_gpus
        self._running: dict[Any, tuple[ShardJob, PrefectRayFuture[None]]] = {}

    def submit(self, job: ShardJob) -> None:
        from prefect_ray.context import remote_options

        # Ray would play the same shard again, while the first writer may only be out of reach.
        with remote_options(num_cpus=1, num_gpus=self._num_gpus, max_retries=0):
            future = self._runner.submit(collect_shard, {**self._arguments, "job": job})
        self._running[future.wrapped_future] = (job, future)

    def next_done(self) -> tuple[ShardJob, Exception | None]:
        import ray

        while not (done := ray.wait(list(self._running), num_returns=1, timeout=_LOOK_EVERY_S)[0]):
            if not has_room(ray.nodes(), self._num_gpus):
                logger.warning("no node of the Ray cluster has room for a shard any more; waiting for one to join it")
        job, future = self._running.pop(done[0])
        try:
            future.result()
        except ray.exceptions.RayTaskError as error:  # the task itself has not begun
            return job, ValueError(
                f"collect.runner: a Ray worker could not play {job.name}: {type(error.cause).__name__}: {error.cause}; "
                "it needs the installation that the run has, and to reach the Prefect server"
            )
        except ray.exceptions.RayError as error:
            return job, WorkerLost(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        except Exception as error:
            return job, error
        return job, None


def gpus_of_a_shard(engine: EngineConfig, num_gpus: float) -> int:
    """How many GPUs a shard takes in a cluster whose largest node has `num_gpus` of them.

    Raises:
        ValueError: the config asks for more than there are.
    """
    if engine.kind in ("scripted", "openai_http"):
        return 0
    if engine.num_gpus is None:
        return min(1, int(num_gpus))
    if engine.num_gpus > num_gpus:
        raise ValueError(
            f"engine.num_gpus: found {engine.num_gpus} for each shard; no node of the Ray cluster has more than "
            f"{num_gpus:g}"
        )
    return engine.num_gpus


def has_room(nodes: Sequence[Mapping[str, Any]], num_gpus: int) -> bool:
    """Whether a living node, as `ray.nodes` tells of it, could hold a shard if nothing else ran there."""
    living = [node["Resources"] for node in nodes if node["Alive"]]
    return any(has.get("CPU", 0) >= 1 and has.get("GPU", 0) >= num_gpus for has in living)


def check_server_is_in_reach(url: str, nodes: list[str]) -> None:
    """See that a Prefect server can be reached from all nodes, as far as the addresses tell.

    Raises:
        ValueError: it is on loopback, and there is more than one machine.
    """
    host = urllib.parse.urlsplit(url).hostname or ""
    if _is_loopback(host) and len(machines := {node for node in nodes if not _is_loopback(node)}) > 1:
        raise ValueError(
            f"PREFECT_API_URL: {host} is this machine alone, and the Ray cluster has {len(machines)}; start the server "
            "on an address that they all reach"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
