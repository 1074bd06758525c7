"""Which rows are trained on in which step."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.training.steps.plan import StepPlan, deal


@given(num_rows=st.integers(1, 60), rows_per_step=st.integers(1, 20), seed=st.integers(0, 3))
def test_each_pass_takes_every_row_once_in_an_order_of_its_own(num_rows: int, rows_per_step: int, seed: int) -> None:
    plan = StepPlan(num_rows, rows_per_step, num_epochs=2, seed=seed)
    steps = [plan.rows(step) for step in range(len(plan))]
    assert all(len(rows) <= rows_per_step for rows in steps)
    passes = np.concatenate(steps).reshape(2, num_rows)
    assert (np.sort(passes) == np.arange(num_rows)).all()
    assert num_rows < 10 or (passes[0] != passes[1]).any()


def test_a_step_is_the_same_whatever_was_asked_before() -> None:
    steps = [StepPlan(50, 8, 3, seed=1).rows(step).tolist() for step in (20, 0, 20)]
    assert steps[0] == steps[2] != steps[1]
    assert steps[0] != StepPlan(50, 8, 3, seed=2).rows(20).tolist()


def test_part_of_a_pass_is_part_of_its_steps() -> None:
    assert len(StepPlan(7, 4, 1.5, seed=0)) == 3


@given(lengths=st.lists(st.integers(1, 100), max_size=40), num_devices=st.integers(1, 5))
def test_devices_share_rows_evenly(lengths: list[int], num_devices: int) -> None:
    hands = deal(lengths, num_devices)
    assert sorted(at for hand in hands for at in hand) == list(range(len(lengths)))
    assert max(map(len, hands)) - min(map(len, hands)) <= 1
    tokens = [sum(lengths[at] for at in hand) for hand in hands]
    assert max(tokens) - min(tokens) <= max(lengths, default=0)
