"""Which rows are trained on in which step: decided by the data and the config alone.

So a resumed training replays the same steps, several processes share each step, and what is read at once may change
between two steps, or within one, without changing what is learnt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tasks.training.rows.split import Indices


@dataclass(frozen=True)
class StepPlan:
    """All steps of a training. A pass takes each row once, in an order of its own; its last step may be smaller."""

    num_rows: int
    """Rows of one pass."""
    rows_per_step: int
    """On all devices together."""
    num_epochs: float
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_rows / self.rows_per_step)

    def __len__(self) -> int:
        return math.ceil(self.num_epochs * self.steps_per_epoch)

    def rows(self, step: int) -> Indices:
        """The rows of a step, counted from 0, as places in the pass."""
        epoch, at = divmod(step, self.steps_per_epoch)
        order = _order(self.num_rows, self.seed, epoch)
        return order[at * self.rows_per_step : (at + 1) * self.rows_per_step]


@lru_cache(maxsize=2)
def _order(num_rows: int, seed: int, epoch: int) -> Indices:
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


def deal(lengths: Sequence[int], num_devices: int) -> list[list[int]]:
    """Share the rows of a step between devices, even in rows and in tokens: the longest are dealt first, to and fro.

    Returns:
        For each device the places of its rows in `lengths`, the longest first; empty if there are too few rows.
    """
    longest_first = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    hands: list[list[int]] = [[] for _ in range(num_devices)]
    for turn, at in enumerate(longest_first):
        there_and_back = turn % (2 * num_devices)
        hands[min(there_and_back, 2 * num_devices - 1 - there_and_back)].append(at)
    return hands
