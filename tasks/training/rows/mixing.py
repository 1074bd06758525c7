"""Files mixed with weights: which token rows make one pass over the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.training.rows.split import Indices
from tasks.training.rows.token_data import NothingToTrainError


def rows_of_pass(
    file_of_row: Indices, weights: Sequence[float], seed: int, left_out: NDArray[np.bool_] | None = None
) -> Indices:
    """Each row of a file as often as the file's weight says; 2.5 is twice each row, and half of them a third time.

    Args:
        file_of_row: for each row the index of its file.
        weights: of the files.
        seed: draws the rows that come once more than others.
        left_out: which rows are not to be trained on, whatever the weights; by default none.

    Raises:
        NothingToTrainError: the weights leave no row.
    """
    kept = np.ones(len(file_of_row), dtype=np.bool_) if left_out is None else ~left_out
    if all(weight == 1 for weight in weights):
        return np.flatnonzero(kept)
    parts = [
        _picked(np.flatnonzero(kept & (file_of_row == file)), weight, [seed, file])
        for file, weight in enumerate(weights)
    ]
    rows = np.concatenate(parts)
    if not len(rows):
        shown = ", ".join(f"{weight:g}" for weight in weights)
        raise NothingToTrainError(
            f"nothing to train on: the weights {shown} in train.data_path leave none of {len(file_of_row)} rows; "
            "raise them"
        )
    return rows


def _picked(rows: Indices, weight: float, seed: list[int]) -> Indices:
    often, share = divmod(weight, 1)
    once_more = np.random.default_rng(seed).permutation(rows)[: round(share * len(rows))]
    return np.concatenate([*[rows] * int(often), np.sort(once_more)])
