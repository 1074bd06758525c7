"""Problems that are held back from training, to see the loss on what is not trained on.

Whole problems, not rows: replies to one problem are so alike that a row would tell little of another one's loss.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.dataset.records import Record

Indices = NDArray[np.int64]


class TooFewProblemsError(ValueError):
    """The data has too few problems to hold some of them back."""


@dataclass(frozen=True)
class RowSplit:
    """Indices into the token rows."""

    training: Indices
    """Of one pass; a row may come more than once."""
    validation: Indices
    """Each once; empty if nothing is held back."""


def problem_number(record: Record) -> int:
    """What all rows of a problem share, in 64 bits. A row that names no problem is of its prompt's."""
    named = record.metadata.problem_hash
    problem = f"problem {named}" if named else f"prompt {record.messages[:-1]!r}"
    return int.from_bytes(hashlib.blake2b(problem.encode(), digest_size=8).digest(), "big", signed=True)


def held_back(problem_of_row: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which rows are of a problem that is held back: that share of the problems, those whose hashes come first.

    So the same problems are, whatever the order and number of their rows; with more data most of them still are.

    Args:
        problem_of_row: its `problem_number`.
        seed: another one holds back others.

    Raises:
        TooFewProblemsError: the share is less than one problem.
    """
    problems = np.unique(problem_of_row)
    count = round(share * len(problems))
    if not count:
        raise TooFewProblemsError(
            f"train.validation_share: {share:g} of {len(problems):,} problems is none of them; wanted at least one; "
            "raise it, train on more problems, or leave it out"
        )
    first = sorted(problems.tolist(), key=lambda problem: _lot(problem, seed))[:count]
    return np.isin(problem_of_row, first)


def _lot(problem: int, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {problem}".encode(), digest_size=8).digest()
