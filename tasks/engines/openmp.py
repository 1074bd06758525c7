"""How torch's threads wait for each other on a CPU. OpenMP reads that when torch is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping

_VARIABLE = "OMP_WAIT_POLICY"
_IS_GIVEN = _VARIABLE in os.environ


def leave_cores_to_others() -> None:
    """Sleep at once, unless the user wants it otherwise: the core belongs to the env's sandbox then.

    When both want the same two cores, waiting in a busy loop makes decoding some ten times slower.
    """
    os.environ.setdefault(_VARIABLE, "PASSIVE")


def keep_cores() -> None:
    """Wait in a busy loop for a moment first, as OpenMP does by itself: for a process that computes alone.

    A training of a small model takes a third less time then.
    """
    if not _IS_GIVEN:
        os.environ.pop(_VARIABLE, None)


def as_given(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment as the user gave it, for a process that has its own way to wait."""
    return {name: value for name, value in environment.items() if name != _VARIABLE or _IS_GIVEN}
