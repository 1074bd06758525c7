"""Prefect task: play the held-out problems, with the bare model or with adapters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task

from tasks.artifacts import artifact_key
from tasks.caching import RETRIED, by_content
from tasks.evaluation.config import EvaluateConfig
from tasks.live_progress import live_progress
from tasks.rollout.artifact import Ref
from tasks.rollout.collection import Collection, PlayConfig
from tasks.rollout.journal import EpisodesRef
from tasks.rollout.progress import Counts


def _content(
    config: PlayConfig,
    evaluate_config: EvaluateConfig,
    adapters: Mapping[str, Ref],
    left_out: frozenset[str],
    data_dir: Path,
) -> Any:
    return Collection.for_evaluation(config, evaluate_config, adapters, left_out).content


@task(
    name="evaluate",
    task_run_name="play {evaluate_config.num_problems} held-out problems of {config.env.name}",
    cache_key_fn=by_content(_content, version=1),
    persist_result=True,
    result_serializer="json",
    **RETRIED,
)
def evaluate(
    config: PlayConfig,
    evaluate_config: EvaluateConfig,
    adapters: Mapping[str, Ref],
    left_out: frozenset[str],
    data_dir: Path,
) -> EpisodesRef:
    """Play what is owed, with the same problems and seeds whoever answers."""
    title = "evaluating the adapter" if adapters else "evaluating the bare model"
    key = artifact_key(config.env.name, "evaluating", "adapter" if adapters else "bare model")
    counts = Counts()
    with live_progress(key, title, counts):
        return Collection.for_evaluation(config, evaluate_config, adapters, left_out).play(
            data_dir, title, watcher=counts
        )
