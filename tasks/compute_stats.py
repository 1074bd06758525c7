"""Prefect task: count what was collected and kept, into `<data file>_stats.json` and a table in the Prefect UI."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.dataset.records import DatasetRef
from tasks.dataset.stats import compute_stats as count
from tasks.dataset.stats import write_stats
from tasks.rollout.journal import EpisodesRef


@task(name="compute-stats", task_run_name="count {dataset.path.name}", cache_policy=NO_CACHE)
def compute_stats(
    episodes: EpisodesRef, dataset: DatasetRef, enough_successes: int | None = None, policy: str | None = None
) -> dict[str, Any]:
    """Write the stats beside the data file.

    Args:
        enough_successes: what stopped the tries at a problem, if anything.
        policy: whose turns the data file was made from; None if from all.
    """
    stats = count(episodes.read(), dataset.funnel, episodes.requested, enough_successes, policy)
    write_stats(dataset.stats_path, stats)
    numbers = {**stats["episodes"], "turns": stats["rows"]["turns"], "kept": stats["rows"]["kept"]}
    numbers |= {f"rejected: {reason}": count for reason, count in stats["rows"]["rejected"].items()}
    rows = [{"what": name, "number": str(value)} for name, value in numbers.items()]
    create_table_artifact(rows, key="collection", description=f"What {dataset.path.name} was made from")
    return stats
