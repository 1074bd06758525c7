"""Data for controls: what would be kept if the verdicts were others. It must not help as the real data does."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

from tasks.dataset.checks import NothingToTrainOnError
from tasks.dataset.records import Record
from tasks.dataset.select import select_turns
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode

Control = Literal["failures", "shuffled verdicts"]
CONTROLS: tuple[Control, ...] = get_args(Control)


def control_records(
    episodes: Sequence[Episode],
    control: Control,
    config: CollectConfig,
    heldout_hashes: frozenset[str],
    most: int,
) -> list[Record]:
    """The turns that `select_turns` keeps under other verdicts, at most `most` of them, drawn by lot.

    - failures: success and failure are exchanged.
    - shuffled verdicts: the same verdicts are dealt anew among the finished episodes.

    Each row says what it is (`control`), and its `env_success` is the true one.

    Raises:
        NothingToTrainOnError: no turn is kept.
    """
    finished = [episode for episode in episodes if episode.error is None]
    rng = random.Random(f"{config.seed} {control}")
    verdicts = [not episode.success for episode in finished]
    if control == "shuffled verdicts":
        verdicts = [episode.success for episode in finished]
        rng.shuffle(verdicts)
    relabelled = [_with_verdict(episode, verdict) for episode, verdict in zip(finished, verdicts, strict=True)]
    kept = select_turns(relabelled, config, heldout_hashes).kept
    if not kept:
        raise NothingToTrainOnError(f"nothing to train on for the control `{control}`: play more episodes that fail")
    truth = {(episode.problem_hash, episode.rollout_idx): episode.success for episode in finished}
    return [_as_control(record, control, truth) for record in rng.sample(kept, min(most, len(kept)))]


def _with_verdict(episode: Episode, success: bool) -> Episode:
    turns = [turn.model_copy(update={"success": success}) for turn in episode.turns]
    return episode.model_copy(update={"success": success, "turns": turns})


def _as_control(record: Record, control: Control, truth: dict[tuple[str, int], bool]) -> Record:
    metadata = record.metadata.model_dump()
    metadata["env_success"] = truth[metadata["problem_hash"], metadata["rollout_idx"]]
    return record.model_copy(
        update={"metadata": record.metadata.model_validate({**metadata, "control": control, "agent_success": None})}
    )
