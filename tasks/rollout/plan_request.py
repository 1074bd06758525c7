"""What was last asked of a journal, kept beside it: whoever looks at it can tell what is owed, without env or model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from envs.base import Problem
from tasks.rollout.artifact import publish_file
from tasks.rollout.episode import Episode, EpisodeKey
from tasks.rollout.plan import due_slots

PLAN_REQUEST = "request.json"


class PlanRequest(BaseModel):
    """All that `due_slots` takes, apart from the outcomes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_episodes: int
    rollouts_per_problem: int
    enough_successes: int | None
    problems: list[str]
    """Hashes of the problems that can come up, in the order of the set."""

    def due(self, outcomes: Mapping[EpisodeKey, bool | None]) -> list[EpisodeKey]:
        """The episodes that are due, given whether those that are finished solved their problem."""
        problems: Sequence[Problem] = [_Known(statement="", known_hash=name) for name in self.problems]
        slots = due_slots(problems, self.num_episodes, self.rollouts_per_problem, self.enough_successes, outcomes)
        return [slot.key for slot in slots]


@dataclass(frozen=True, kw_only=True)
class _Known(Problem):
    """A problem of which nothing but the hash is known."""

    known_hash: str

    @property
    def hash(self) -> str:
        return self.known_hash


class Asked(NamedTuple):
    """Episodes that were asked for and not played."""

    owed: int
    spared: int
    """Not needed, because enough of the others succeeded."""


def unplayed(folder: Path, episodes: Iterable[Episode]) -> Asked:
    """What was asked of the journal in `folder`, which holds these episodes, and is not there.

    Raises:
        ValueError: it is not known what was asked.
    """
    request = read_request(folder)
    outcomes = {episode.key: episode.success for episode in episodes}
    due = request.due(outcomes)
    owed = sum(key not in outcomes for key in due)
    return Asked(owed, 0 if owed else max(0, request.num_episodes - len(due)))


def note_request(folder: Path, request: PlanRequest) -> None:
    """Write down what is asked of the journal in `folder`, in place of what was asked before."""
    with publish_file(folder / PLAN_REQUEST) as tmp:
        tmp.write_text(request.model_dump_json())


def read_request(folder: Path) -> PlanRequest:
    """What was last asked of the journal in `folder`.

    Raises:
        ValueError: that is not known.
    """
    path = folder / PLAN_REQUEST
    try:
        return PlanRequest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"an earlier version wrote no {PLAN_REQUEST}") from None
    except (OSError, ValidationError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
