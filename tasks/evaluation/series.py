"""Trainings in a series: the rounds of expert iteration, and the arms of a control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tasks.evaluation.compare import Comparison
from tasks.rollout.artifact import publish_file

SERIES = "series.json"
"""The series of the last run that wrote to a data folder, if it had one."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Episodes were collected with the best adapters so far, and new ones trained on everything that was kept."""

    number: int
    """From 1."""
    success_rate: float | None
    """Of the episodes that this round collected; None if none finished."""
    kept: int
    """Turns that this round added to the data."""
    trained_rows: int
    """Rows that its adapters were trained on, those of earlier rounds included."""
    comparison: Comparison | None
    """The new adapters against the best ones so far, in the first round against the bare model.

    None: nothing was kept, so nothing was trained.
    """

    @property
    def promoted(self) -> bool:
        """Whether the new adapters take the place of the best ones: only if they are better beyond doubt."""
        return self.comparison is not None and self.comparison.verdict == "improved"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of several trainings on data of the same episodes, compared with the bare model."""

    trained_rows: int
    comparison: Comparison


@dataclass(frozen=True, kw_only=True)
class Series:
    """What a run had of either."""

    rounds: Sequence[Round] = ()
    arms: Mapping[str, Arm] = field(default_factory=dict)
    """By what was trained on: successes, and that of each control."""


_SERIES = TypeAdapter(Series)


def write_series(folder: Path, series: Series) -> None:
    """Keep a run's series for its page; where it has none, that of an earlier run goes."""
    path = folder / SERIES
    if not series.rounds and not series.arms:
        path.unlink(missing_ok=True)
        return
    with publish_file(path) as tmp:
        tmp.write_bytes(_SERIES.dump_json(series))


def read_series(folder: Path) -> Series:
    """The series of the last run that wrote to a data folder; empty if it had none.

    Raises:
        ValueError: the file cannot be read.
    """
    path = folder / SERIES
    try:
        return _SERIES.validate_json(path.read_bytes())
    except FileNotFoundError:
        return Series()
    except (OSError, ValidationError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
