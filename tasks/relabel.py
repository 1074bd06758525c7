"""Prefect task: a data file for a control, of turns that other verdicts would have kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from envs.base import problem_set_digest
from envs.problems.splits import heldout_problems
from tasks.caching import by_content
from tasks.dataset.records import write_records
from tasks.dataset.relabel import Control, control_records
from tasks.rollout.artifact import Ref, content_hash
from tasks.rollout.collection import PlayConfig
from tasks.rollout.episode import of_policy
from tasks.rollout.journal import EpisodesRef
from tasks.validate import SELECTION


def _content(
    episodes: EpisodesRef, config: PlayConfig, policy: str, control: Control, most: int, data_dir: Path
) -> dict[str, Any]:
    return {
        "episodes": episodes.sha256,
        "selection": config.collect.model_dump(mode="json", include=SELECTION),
        "heldout": problem_set_digest(heldout_problems(config.env_class, config.env)),
        "policy": policy,
        "control": control,
        "most": most,
    }


@task(
    name="relabel",
    task_run_name="pick {control} of {policy}",
    cache_key_fn=by_content(_content, version=1),
    persist_result=True,
    result_serializer="json",
)
def relabel(episodes: EpisodesRef, config: PlayConfig, policy: str, control: Control, most: int, data_dir: Path) -> Ref:
    """Write `controls/<policy>-<control>.jsonl` in the data folder, at most `most` rows.

    Raises:
        NothingToTrainOnError: no turn is kept.
    """
    heldout = frozenset(problem.hash for problem in heldout_problems(config.env_class, config.env))
    played = [of_policy(episode, policy) for episode in episodes.read()]
    path = data_dir / "controls" / f"{policy}-{control.replace(' ', '-')}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_records(path, control_records(played, control, config.collect, heldout, most))
    return Ref(path=path, sha256=content_hash(path))
