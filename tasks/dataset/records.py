"""The data file: its rows, what becomes of the turns that are not kept, and the counts of both.

`<stem>.jsonl` holds one `Record` a line, `<stem>_rejected.jsonl` one `Rejected` a line. `select.py` makes them,
`files.py` publishes them, `reading.py` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from tasks.rollout.artifact import Ref, publish_file

Reason = Literal[
    "episode_error",
    "episode_failed",
    "agent_failed",
    "not_trained",
    "other_turn",
    "truncated",
    "empty_reply",
    "held_out",
    "duplicate",
    "over_quota",
    "agent_ratio",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a turn is not kept, in the order in which they are tried; a turn has the first that applies."""


class RecordMetadata(BaseModel):
    """Where a row comes from. A collected row has every field and some more; a user's own row may lack them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    agent_name: str = "unknown"
    policy_name: str = "unknown"
    reward: float | None = None
    env_success: bool | None = None
    env_name: str = "unknown"
    env_idx: int | None = None
    rollout_idx: int | None = None
    turn_idx: int | None = None

    @property
    def problem_hash(self) -> Any:
        """Of a collected row; a user's own row may have anything by that name, or nothing."""
        return (self.model_extra or {}).get("problem_hash")


class Record(BaseModel):
    """One row of the training file. `messages` is what the policy saw, then its reply; the loss is on the last only."""

    model_config = ConfigDict(frozen=True)

    messages: list[dict[str, str]]
    metadata: RecordMetadata = RecordMetadata()

    @property
    def content(self) -> str:
        """What makes two rows the same: their messages, whoever wrote them."""
        return repr([(m["role"], m["content"]) for m in self.messages])


class Rejected(Record):
    """A turn that is not kept, as the row that it would have been."""

    reason: Reason


class Funnel(BaseModel):
    """What became of every turn that was played. It adds up: turns = kept + all that were rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    finished: int
    """Episodes that ended with a verdict."""
    succeeded: int
    errored: int
    """Episodes that an exception ended; they are not among the finished ones."""
    turns: int
    kept: int
    kept_by_agent: dict[str, int]
    rejected: dict[Reason, int]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.turns != self.kept + sum(self.rejected.values()):
            raise ValueError(f"the funnel does not add up: {self.turns} turns, {self.kept} kept, {self.rejected}")
        return self

    @property
    def success_rate(self) -> float | None:
        """Share of the finished episodes that succeeded; None if none finished."""
        return self.succeeded / self.finished if self.finished else None


class DatasetRef(Ref):
    """A published data file of this project, with its counts. The files beside it share its name's stem."""

    funnel: Funnel

    @model_validator(mode="after")
    def _has_its_companions(self) -> Self:
        for path in (self.rejected_path, self.config_path):
            if not path.exists():
                raise ValueError(f"{path} is gone")
        return self

    @property
    def rejected_path(self) -> Path:
        return beside(self.path, "_rejected.jsonl")

    @property
    def config_path(self) -> Path:
        return beside(self.path, "_config.yaml")

    @property
    def stats_path(self) -> Path:
        return beside(self.path, "_stats.json")


def beside(data_path: Path, ending: str) -> Path:
    """The file that belongs to a data file: `sft_data_X.jsonl` and `_stats.json` give `sft_data_X_stats.json`."""
    return data_path.with_name(data_path.stem + ending)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records, or rejected ones, one a line; the file appears whole or not at all."""
    with publish_file(path) as tmp, tmp.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(record.model_dump_json(exclude_unset=True) + "\n")
