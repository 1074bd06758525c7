"""Before against after, episode by episode: the same problems, the same rollouts, the same seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from tasks.dataset.select import refuse_doubles
from tasks.evaluation.intervals import Estimate, difference_interval, exact_p_value, rate_interval
from tasks.rollout.episode import Episode, last_turns

Verdict = Literal["improved", "no significant difference", "got worse"]


@dataclass(frozen=True)
class Effect:
    """Success before and after on some pairs of episodes. Each problem counts the same, however many pairs it has."""

    problems: int
    pairs: int
    before: Estimate
    after: Estimate
    difference: Estimate
    """After minus before: 0.1 is 10 points."""


@dataclass(frozen=True)
class ProblemChange:
    """A problem whose success rate changed."""

    problem_hash: str
    env_idx: int
    difficulty: int
    before: float
    after: float
    pairs: int


@dataclass(frozen=True)
class Comparison:
    """What training changed on held-out problems."""

    overall: Effect
    p_value: float
    """Two-sided, from the exact paired test."""
    verdict: Verdict
    by_difficulty: dict[int, Effect]
    by_agent: dict[str, Effect]
    """By the success of the agent's last turn in an episode."""
    better: list[ProblemChange]
    """Problems solved more often after than before, the largest change first."""
    worse: list[ProblemChange]
    errored_before: int
    errored_after: int
    excluded: int
    """Pairs left out because one side or both errored: an error is not a failure."""


Pair = tuple[Episode, Episode]


def compare(before: Sequence[Episode], after: Sequence[Episode]) -> Comparison:
    """Compare two evaluations of the same held-out episodes.

    The verdict is "improved" or "got worse" only where the 95 % interval of the difference excludes 0 and the exact
    test gives p < 0.05; else it is "no significant difference", which is a result.

    Raises:
        ValueError: an episode stands on one side only or twice, or no pair is free of errors.
    """
    pairs = _pair(before, after)
    sound = [(b, a) for b, a in pairs if b.error is None and a.error is None]
    if not sound:
        raise ValueError(f"nothing to compare: of {len(pairs)} pairs of episodes none is without an error.")
    overall = _effect(sound, _episode_success)
    p_value = exact_p_value([sum(a.success - b.success for b, a in group) for group in _by_problem(sound).values()])
    changes = [_change(group) for group in _by_problem(sound).values()]
    return Comparison(
        overall=overall,
        p_value=p_value,
        verdict=_verdict(overall.difference, p_value),
        by_difficulty=_by_difficulty(sound),
        by_agent=_by_agent(sound),
        better=sorted((c for c in changes if c.after > c.before), key=lambda c: (c.before - c.after, c.env_idx)),
        worse=sorted((c for c in changes if c.after < c.before), key=lambda c: (c.after - c.before, c.env_idx)),
        errored_before=sum(b.error is not None for b, _ in pairs),
        errored_after=sum(a.error is not None for _, a in pairs),
        excluded=len(pairs) - len(sound),
    )


def _pair(before: Sequence[Episode], after: Sequence[Episode]) -> list[Pair]:
    refuse_doubles(before)
    refuse_doubles(after)
    left, right = {e.key: e for e in before}, {e.key: e for e in after}
    if lone := sorted(left.keys() ^ right.keys()):
        only_before = len(left.keys() - right.keys())
        raise ValueError(
            f"before and after were not played on the same episodes: {only_before} stand only before and "
            f"{len(lone) - only_before} only after, e.g. rollout {lone[0].rollout_idx} of problem "
            f"{lone[0].problem_hash}; wanted the same problems and rollouts; finish both evaluations."
        )
    return [(left[key], right[key]) for key in sorted(left)]


def _effect(pairs: Sequence[Pair], success: Callable[[Episode], bool]) -> Effect:
    groups = [[(success(b), success(a)) for b, a in group] for group in _by_problem(pairs).values()]
    before = [sum(b for b, _ in group) / len(group) for group in groups]
    after = [sum(a for _, a in group) / len(group) for group in groups]
    rollouts = len(pairs) / len(groups)
    return Effect(
        problems=len(groups),
        pairs=len(pairs),
        before=rate_interval(before, rollouts),
        after=rate_interval(after, rollouts),
        difference=difference_interval([a - b for b, a in zip(before, after, strict=True)], rollouts),
    )


def _by_problem(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair[0].problem_hash].append(pair)
    return groups


def _by_difficulty(pairs: Sequence[Pair]) -> dict[int, Effect]:
    levels = sorted({b.difficulty for b, _ in pairs})
    return {d: _effect([pair for pair in pairs if pair[0].difficulty == d], _episode_success) for d in levels}


def _by_agent(pairs: Sequence[Pair]) -> dict[str, Effect]:
    """Over the pairs in which the agent had a turn on both sides."""
    agents = sorted({t.agent_name for b, _ in pairs for t in b.turns})
    effects = {}
    for agent in agents:
        both = [(b, a) for b, a in pairs if agent in last_turns(b) and agent in last_turns(a)]
        if both:
            effects[agent] = _effect(both, partial(_agent_success, agent=agent))
    return effects


def _episode_success(episode: Episode) -> bool:
    return episode.success


def _agent_success(episode: Episode, agent: str) -> bool:
    return last_turns(episode)[agent].success


def _change(group: Sequence[Pair]) -> ProblemChange:
    first = group[0][0]
    return ProblemChange(
        problem_hash=first.problem_hash,
        env_idx=first.env_idx,
        difficulty=first.difficulty,
        before=sum(b.success for b, _ in group) / len(group),
        after=sum(a.success for _, a in group) / len(group),
        pairs=len(group),
    )


def _verdict(difference: Estimate, p_value: float) -> Verdict:
    if p_value < 0.05 and difference.low > 0:
        return "improved"
    if p_value < 0.05 and difference.high < 0:
        return "got worse"
    return "no significant difference"
