"""Prefect task: count what was collected and kept, into `<data file>_stats.json` and tables in the Prefect UI."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import artifact_key, show_markdown, show_table
from tasks.dataset.records import DatasetRef
from tasks.dataset.stats import compute_stats as count
from tasks.dataset.stats import write_stats
from tasks.reporting.tables import funnel_rows, statistics_markdown
from tasks.rollout.episode import SHARED_POLICY
from tasks.rollout.journal import EpisodesRef


@task(name="compute-stats", task_run_name="count {dataset.path.name}", cache_policy=NO_CACHE)
def compute_stats(
    episodes: EpisodesRef,
    dataset: DatasetRef,
    env: str,
    enough_successes: int | None = None,
    policy: str | None = None,
) -> dict[str, Any]:
    """Write the stats beside the data file.

    Args:
        env: the name of the environment.
        enough_successes: what stopped the tries at a problem, if anything.
        policy: whose turns the data file was made from; None if from all.
    """
    stats = count(episodes.read(), dataset.funnel, episodes.requested, enough_successes, policy)
    write_stats(dataset.stats_path, stats)
    of = None if policy == SHARED_POLICY else policy
    kept = f"{dataset.funnel.kept:,} of {dataset.funnel.turns:,} turns kept: {dataset.path}"
    show_table(artifact_key(env, "funnel", of), funnel_rows(stats), kept)
    succeeded = f"{dataset.funnel.succeeded:,} of {dataset.funnel.finished:,} episodes succeeded: {dataset.path}"
    show_markdown(artifact_key(env, "statistics", of), statistics_markdown(stats), succeeded)
    return stats
