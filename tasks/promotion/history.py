"""The history of a promoted folder: one line for each adapter that was promoted, or was not, and for each roll-back.

It is written before the pointer is moved, so what it says last is what is promoted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from tasks.evaluation.compare import Comparison, Verdict
from tasks.rollout.artifact import sync_folder

HISTORY = "history.jsonl"
BARE_MODEL = "the bare model"
"""What is played where no version is promoted."""

Outcome = Literal["promoted", "rolled back", "kept the old one"]


class Proof(BaseModel):
    """A comparison on held-out problems, in a few figures. Rates and their difference are shares: 0.1 is 10 points."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    problems: int
    before: float
    after: float
    difference: float
    low: float
    """Of the difference's 95 % interval."""
    high: float
    p_value: float
    verdict: Verdict

    @classmethod
    def of(cls, comparison: Comparison) -> Self:
        """The figures of a comparison."""
        overall = comparison.overall
        return cls(
            problems=overall.problems,
            before=overall.before.value,
            after=overall.after.value,
            difference=overall.difference.value,
            low=overall.difference.low,
            high=overall.difference.high,
            p_value=comparison.p_value,
            verdict=comparison.verdict,
        )


class Entry(BaseModel):
    """One line of the history."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    when: AwareDatetime
    outcome: Outcome
    version: str | None
    """What is promoted from then on; None is the bare model."""
    replaced: str | None
    """What was promoted until then."""
    why: str
    proof: Proof | None = None
    data: dict[str, str] = {}
    """The data files that the new adapter was trained on, with the SHA-256 of each."""
    run: str | None = None
    """The id of the flow run, where one did it."""

    @property
    def summary(self) -> str:
        """What was done, in a line."""
        if self.outcome == "kept the old one":
            return f"kept {self.version or BARE_MODEL}: {self.why}"
        verb = "promoted" if self.outcome == "promoted" else "rolled back to"
        return f"{verb} {self.version or BARE_MODEL} in place of {self.replaced or BARE_MODEL}: {self.why}"


def read_history(folder: Path) -> list[Entry]:
    """The entries of a promoted folder, the oldest first. A last line that a kill has torn does not count.

    Raises:
        ValueError: a line is not an entry.
    """
    entries = []
    for number, line in enumerate(_whole_lines(folder / HISTORY), start=1):
        try:
            entries.append(Entry.model_validate_json(line))
        except ValidationError as error:
            raise ValueError(
                f"{folder / HISTORY}:{number}: not an entry of a history ({error.errors()[0]['msg']}); mend or remove "
                "this line"
            ) from None
    return entries


def present_version(entries: Sequence[Entry]) -> str | None:
    """The version that is promoted by the end of a history; None is the bare model."""
    return entries[-1].version if entries else None


def promoted_at(entries: Iterable[Entry], when: datetime) -> str | None:
    """The version that was promoted at a time; None is the bare model."""
    version = None
    for entry in entries:
        if entry.when <= when:
            version = entry.version
    return version


def append_entry(folder: Path, entry: Entry) -> None:
    """Add an entry, on disk when this returns. The caller holds the folder's lock."""
    path = folder / HISTORY
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        whole = sum(map(len, _whole_lines(path)))
        os.ftruncate(fd, whole)
        os.pwrite(fd, entry.model_dump_json().encode() + b"\n", whole)
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_folder(folder)


def now() -> datetime:
    """The time that an entry has."""
    return datetime.now(UTC)


def _whole_lines(path: Path) -> list[bytes]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [line for line in lines if line.endswith(b"\n")]
