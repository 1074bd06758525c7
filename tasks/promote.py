"""Prefect task: promote an adapter that is better than the present one, else keep that one, and note either."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.evaluation.compare import Comparison
from tasks.promotion import promoted
from tasks.promotion.history import Entry
from tasks.rollout.artifact import Ref


@task(name="promote", task_run_name="promote in {folder} if it is better", cache_policy=NO_CACHE)
def promote(
    folder: Path,
    parts: Mapping[Path, Ref],
    instead_of: str | None,
    comparison: Comparison,
    data: Mapping[str, str],
    run: str | None,
) -> Entry:
    """The entry of the history that says what was done; see `tasks.promotion.promoted`.

    Raises:
        PromotionError: a model folder has been changed meanwhile.
    """
    if comparison.verdict == "improved":
        return promoted.promote(folder, parts, instead_of=instead_of, comparison=comparison, data=data, run=run)
    why = f"{comparison.verdict} on held-out problems"
    return promoted.keep(folder, why, comparison=comparison, data=data, run=run)
