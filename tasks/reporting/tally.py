"""Counts and rates of what was played, as the page's tables and charts show them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.evaluation.intervals import Estimate, rate_interval
from tasks.evaluation.report import level_name
from tasks.reporting.folder import KEPT, RunData
from tasks.rollout.episode import Episode


@dataclass(frozen=True)
class Rate:
    """A success rate of a group, with its interval."""

    count: int
    succeeded: int
    estimate: Estimate


@dataclass(frozen=True)
class Funnel:
    """What became of all that was asked for, from episodes to rows to train on. It adds up, on both levels."""

    requested: int | None
    """Episodes that were asked for: all of the following. None: it is not known how many."""
    episodes: Mapping[str, int]
    """solved, unsolved and errored; then, if there are such, not played yet and not needed."""
    turns: Mapping[str, int]
    """Kept, and rejected by reason."""


def funnel(run: RunData) -> Funnel:
    """What became of the collected episodes and of their turns."""
    states = Counter(state(episode) for episode in run.collected)
    fates = Counter(run.fate(e, t) for e in run.collected for t in e.turns)
    first = {KEPT: fates.pop(KEPT, 0)}
    asked = [journal.asked for journal in run.journals if not journal.is_heldout]
    known = [found for found in asked if found is not None]
    unplayed = {"not played yet": sum(a.owed for a in known), "not needed": sum(a.spared for a in known)}
    episodes = {s: states[s] for s in STATES} | {why: count for why, count in unplayed.items() if count}
    requested = sum(episodes.values()) if len(known) == len(asked) else None
    return Funnel(requested, episodes, first | dict(fates.most_common()))


STATES = ("solved", "unsolved", "errored")


def state(episode: Episode) -> str:
    """An errored episode is neither solved nor unsolved."""
    return "errored" if episode.error else "solved" if episode.success else "unsolved"


def rates_by(episodes: Iterable[Episode], what: str) -> dict[str, Rate]:
    """Success rates of the finished episodes in groups; of turns, where `what` is about turns.

    Args:
        what: `all`, `env`, `difficulty`, `role` or `turn`.
    """
    groups: dict[tuple[int, str], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for episode in episodes:
        if episode.error is None:
            for position, group, success in _marks(episode, what):
                groups[position, group][episode.problem_hash].append(success)
    return {name: _rate(list(problems.values())) for (_, name), problems in sorted(groups.items())}


def _marks(episode: Episode, what: str) -> Iterator[tuple[int, str, bool]]:
    """Position, name and success of what is counted."""
    if what == "role":
        yield from ((0, turn.agent_name, turn.success) for turn in episode.turns)
    elif what == "turn":
        yield from ((turn.turn_idx, f"turn {turn.turn_idx + 1}", turn.success) for turn in episode.turns)
    elif what == "difficulty":
        yield episode.difficulty, f"difficulty {level_name(episode.difficulty)}", episode.success
    else:
        yield 0, episode.env_name if what == "env" else "all", episode.success


def _rate(problems: Sequence[Sequence[bool]]) -> Rate:
    count = sum(map(len, problems))
    return Rate(
        count,
        sum(map(sum, problems)),
        rate_interval([sum(tries) / len(tries) for tries in problems], count / len(problems)),
    )


def lengths(episodes: Iterable[Episode], of: str) -> dict[str, list[int]]:
    """Tokens of each turn, by role. `of`: `prompt` or `completion`."""
    found: dict[str, list[int]] = defaultdict(list)
    for episode in episodes:
        for turn in episode.turns:
            found[turn.agent_name].append(turn.prompt_tokens if of == "prompt" else turn.completion_tokens)
    return dict(sorted(found.items()))
