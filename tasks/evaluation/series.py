"""Trainings in a series: the rounds of expert iteration, and the arms of a control."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.evaluation.compare import Comparison


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
