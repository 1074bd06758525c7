"""Judges of answers. No verdict here is made by a process that runs a model's code."""

from __future__ import annotations


class GradingError(RuntimeError):
    """A problem's own tests are broken, so no answer to it can be judged. An error, not a reward of 0."""
