"""Prefect task: play episodes into the journal. A retry is a resume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task

from tasks.artifacts import artifact_key
from tasks.caching import RETRIED, by_content
from tasks.live_progress import live_progress
from tasks.rollout.artifact import Ref
from tasks.rollout.collection import Collection, PlayConfig
from tasks.rollout.journal import EpisodesRef
from tasks.rollout.progress import Counts


def _content(config: PlayConfig, adapters: Mapping[str, Ref], left_out: frozenset[str], data_dir: Path) -> Any:
    return Collection.for_training(config, adapters, left_out).content


@task(
    name="collect",
    task_run_name="collect {config.collect.num_episodes} episodes of {config.env.name}",
    cache_key_fn=by_content(_content, version=1),
    persist_result=True,
    result_serializer="json",
    **RETRIED,
)
def collect(config: PlayConfig, adapters: Mapping[str, Ref], left_out: frozenset[str], data_dir: Path) -> EpisodesRef:
    """Play the episodes that are owed, each policy with its adapter if it has one, and refer to all of them."""
    collection = Collection.for_training(config, adapters, left_out)
    counts = Counts()
    with live_progress(artifact_key(config.env.name, "collecting"), "collecting", counts):
        if config.collect.runner == "local":
            return collection.play(data_dir, "collecting", watcher=counts)
        from tasks.collect_shard import ray_workers  # an extra

        with ray_workers(config, adapters, left_out, data_dir) as workers:
            return collection.play(data_dir, "collecting", workers, watcher=counts)
