"""Data for controls: what would be kept if the verdicts were others. It must not help as the real data does."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

from tasks.dataset.checks import NothingToTrainOnError
from tasks.dataset.records import Record
from tasks.dataset.select import select_turns
from tasks.rollout.artifact import Ref
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode, last_turns

Control = Literal["failures", "shuffled verdicts"]
CONTROLS: tuple[Control, ...] = get_args(Control)


class ControlRef(Ref):
    """The data file of a control."""

    rows: int


def check_control_can_be_made(config: CollectConfig) -> None:
    """See that what is kept depends on verdicts, and on nothing about them that other verdicts would leave open.

    Raises:
        ValueError: it does not.
    """
    if not config.only_success:
        raise ValueError(
            "collect.only_success: found false; a control needs it, because without it no verdict decides what is kept."
        )
    if config.turns == "until_success":
        raise ValueError(
            "collect.turns: found until_success; a control needs all or last, because nobody can say which turn of "
            "an agent that failed would have been its first to succeed."
        )


def control_records(
    episodes: Sequence[Episode],
    control: Control,
    config: CollectConfig,
    heldout_hashes: frozenset[str],
    most: int,
) -> list[Record]:
    """The turns that `select_turns` keeps under other verdicts, drawn by lot: at most `most`, fewer if there are fewer.

    The verdicts are those that `collect_mode` goes by: env, of each episode; agent, of each agent's last turn.

    - failures: success and failure are exchanged.
    - shuffled verdicts: the same verdicts are dealt anew among the finished episodes, those of agents among the
      agents of the same name.

    Each row says what it is (`control`), and its `env_success` and `agent_success` are the true ones.

    Raises:
        NothingToTrainOnError: no turn is kept.
        ValueError: this config allows no control; see `check_control_can_be_made`.
    """
    check_control_can_be_made(config)
    finished = [episode for episode in episodes if episode.error is None]
    rng = random.Random(f"{config.seed} {control}")
    relabel = _with_other_verdicts if config.collect_mode == "env" else _with_other_last_turns
    kept = select_turns(relabel(finished, control, rng), config, heldout_hashes).kept
    if not kept:
        raise NothingToTrainOnError(f"nothing to train on for the control `{control}`: play more episodes that fail")
    truth = {(episode.problem_hash, episode.rollout_idx): episode for episode in finished}
    return [_as_control(record, control, truth) for record in rng.sample(kept, min(most, len(kept)))]


def _others(verdicts: Sequence[bool], control: Control, rng: random.Random) -> Iterator[bool]:
    """For each verdict, in order, the one that takes its place."""
    if control == "failures":
        return iter([not verdict for verdict in verdicts])
    dealt = list(verdicts)
    rng.shuffle(dealt)
    return iter(dealt)


def _with_other_verdicts(episodes: Sequence[Episode], control: Control, rng: random.Random) -> list[Episode]:
    others = _others([episode.success for episode in episodes], control, rng)
    return [episode.model_copy(update={"success": next(others)}) for episode in episodes]


def _with_other_last_turns(episodes: Sequence[Episode], control: Control, rng: random.Random) -> list[Episode]:
    """An agent that was right in an episode that failed is no failure, so each is taken by itself."""
    verdicts: dict[str, list[bool]] = {}
    for episode in episodes:
        for agent, turn in last_turns(episode).items():
            verdicts.setdefault(agent, []).append(turn.success)
    others = {agent: _others(of_agent, control, rng) for agent, of_agent in verdicts.items()}
    return [_with_last_turns(e, {agent: next(others[agent]) for agent in last_turns(e)}) for e in episodes]


def _with_last_turns(episode: Episode, successes: Mapping[str, bool]) -> Episode:
    last = last_turns(episode)
    turns = [
        turn.model_copy(update={"success": successes[turn.agent_name]}) if turn is last[turn.agent_name] else turn
        for turn in episode.turns
    ]
    return episode.model_copy(update={"turns": turns})


def _as_control(record: Record, control: Control, truth: Mapping[tuple[str, int], Episode]) -> Record:
    metadata = record.metadata.model_dump()
    episode = truth[metadata["problem_hash"], metadata["rollout_idx"]]
    agent_success = last_turns(episode)[metadata["agent_name"]].success
    told = {**metadata, "control": control, "env_success": episode.success, "agent_success": agent_success}
    return record.model_copy(update={"metadata": record.metadata.model_validate(told)})
