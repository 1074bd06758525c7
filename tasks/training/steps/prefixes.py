"""What rows have in common at their beginnings: instructions, a problem, a conversation so far."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.training.rows.token_rows import TrainRow


def shared_lengths(rows: Sequence[TrainRow]) -> NDArray[Any]:
    """(rows, rows): how many first tokens each two different rows have in common; 0 on the diagonal."""
    order = by_tokens(rows)
    # Between sorted rows the common prefix is the shortest of those between neighbours on the way.
    steps = [shared_length(rows[a], rows[b]) for a, b in pairwise(order)]
    shared = np.zeros((len(rows), len(rows)), dtype=np.int64)
    for at in range(len(steps)):
        shared[order[at], order[at + 1 :]] = np.minimum.accumulate(steps[at:])
    return np.maximum(shared, shared.T)


def shared_length(a: TrainRow, b: TrainRow) -> int:
    """How many first tokens two rows have in common."""
    most = min(len(a.input_ids), len(b.input_ids))
    differing = np.flatnonzero(a.input_ids[:most] != b.input_ids[:most])
    return int(differing[0]) if len(differing) else most


def by_tokens(rows: Sequence[TrainRow]) -> list[int]:
    """Places of rows sorted by their tokens, so that each shares most with one beside it."""
    keys = [row.input_ids.astype(">u4").tobytes() for row in rows]  # bytes compare as these numbers do
    return sorted(range(len(rows)), key=keys.__getitem__)
