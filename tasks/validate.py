"""Prefect task: pick the turns to train on, see that there are some, and publish them as a data file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task

from envs.base import problem_set_digest
from envs.problems.splits import heldout_problems
from tasks.caching import by_content
from tasks.dataset.checks import NothingToTrainOnError, check_something_kept
from tasks.dataset.files import write_dataset
from tasks.dataset.records import DatasetRef
from tasks.dataset.select import for_policy, select_turns
from tasks.events import tell_nothing_collected
from tasks.rollout.collection import PlayConfig
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode, of_policy
from tasks.rollout.journal import EpisodesRef

SELECTION = {
    *("only_success", "collect_mode", "turns", "keep_truncated"),
    *("max_per_problem", "prefer", "agent_ratios", "seed"),
}
"""The fields of CollectConfig that decide which turns are kept."""


def selection_content(episodes: EpisodesRef, config: PlayConfig, policy: str) -> dict[str, Any]:
    """What the turns that are kept of one policy depend on."""
    return {
        "policy": policy,
        "episodes": episodes.sha256,
        "selection": config.collect.model_dump(mode="json", include=SELECTION),
        "heldout": problem_set_digest(heldout_problems(config.env_class, config.env)),
    }


def selection_input(
    episodes: EpisodesRef, config: PlayConfig, policy: str
) -> tuple[list[Episode], CollectConfig, frozenset[str]]:
    """What `select_turns` takes: the episodes with the turns of one policy, its settings, and the held-out hashes."""
    played = [of_policy(episode, policy) for episode in episodes.read()]
    collect = for_policy(config.collect, played, config.env_class.seats_for(config.env))
    return played, collect, frozenset(problem.hash for problem in heldout_problems(config.env_class, config.env))


def _content(
    episodes: EpisodesRef, config: PlayConfig, policy: str, data_dir: Path, resolved_config: Mapping[str, Any]
) -> dict[str, Any]:
    return selection_content(episodes, config, policy)


@task(
    name="validate",
    task_run_name="pick turns of {policy} from {episodes.finished} episodes",
    cache_key_fn=by_content(_content, version=1),
    persist_result=True,
    result_serializer="json",
)
def validate(
    episodes: EpisodesRef, config: PlayConfig, policy: str, data_dir: Path, resolved_config: Mapping[str, Any]
) -> DatasetRef:
    """Write the data file of one policy, what was rejected of its turns, and the config that made them.

    Raises:
        NothingToTrainOnError: no turn is kept; nothing is written.
    """
    selection = select_turns(*selection_input(episodes, config, policy))
    named = policy if len(config.policy_names) > 1 else None
    try:
        check_something_kept(selection.funnel, named)
    except NothingToTrainOnError as error:
        tell_nothing_collected(config.env.name, str(error))
        raise
    return write_dataset(data_dir, selection, resolved_config, policy=named)
