"""Whole problems are held back, the same ones whatever the order of the rows."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.dataset.records import Record
from tasks.training.rows.split import TooFewProblemsError, held_back, problem_number


def test_problems_are_held_back_whole_and_the_same_in_any_order() -> None:
    problems = np.repeat(np.arange(100, dtype=np.int64), 3)
    held = held_back(problems, 0.1, seed=0)
    chosen = set(problems[held].tolist())
    assert len(chosen) == 10 and held.sum() == 30
    other = np.random.default_rng(0).permutation(problems)
    assert set(other[held_back(other, 0.1, seed=0)].tolist()) == chosen
    assert set(problems[held_back(problems, 0.1, seed=1)].tolist()) != chosen


def test_a_share_of_less_than_one_problem_is_refused() -> None:
    with pytest.raises(TooFewProblemsError, match=r"0\.1 of 3 problems is none"):
        held_back(np.arange(3, dtype=np.int64), 0.1, seed=0)


def test_rows_are_of_one_problem_by_its_hash_or_else_by_their_prompt() -> None:
    def number(asked: str, reply: str, **metadata: str) -> int:
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]
        return problem_number(Record.model_validate({"messages": messages, "metadata": metadata}))

    assert number("a", "1") == number("a", "2") != number("b", "1")
    assert number("a", "1", problem_hash="x") == number("b", "2", problem_hash="x") != number("a", "1")
