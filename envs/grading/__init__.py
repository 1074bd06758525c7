"""Judges of answers. No verdict here is made by a process that runs a model's code."""

from __future__ import annotations


class GradingError(RuntimeError):
    """An answer could not be judged, by no fault of the answer. Never a reward of 0: it stops the run."""
