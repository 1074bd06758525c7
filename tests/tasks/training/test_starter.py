"""The included policy: small, mediocre on purpose, and trained on starter problems only."""

from __future__ import annotations

import random

import pytest

from envs import load_env_class
from envs.sandbox import open_sandbox
from envs.sandbox.base import SandboxConfig
from tasks.training.starter import FOLDER, SEATINGS, gather_examples, success_rates


def test_its_weights_are_at_most_8_mb_and_its_card_says_what_it_can_do() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) <= 8_000_000
    assert "stateful_env | stateful_single_agent | 48.0 %" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("env_name", sorted(SEATINGS))
def test_it_solves_some_held_out_problems_but_not_all(env_name: str) -> None:
    problems = {env_name: load_env_class(env_name).problems(None, "heldout")[:24]}
    rates = success_rates(FOLDER, problems, open_sandbox(SandboxConfig()))
    assert len(rates) == len(SEATINGS[env_name])
    for name, rate in rates.items():
        assert 0.15 < rate < 0.85, f"{name}: {rate}"


def test_its_examples_hold_starter_problems_only_and_none_that_was_set_aside() -> None:
    examples, aside = gather_examples(random.Random(0), open_sandbox(SandboxConfig()), later=2, drawn=500)
    shown = {example.problem_hash for example in examples}
    assert len(shown) > 20_000
    for env_name in SEATINGS:
        env_class = load_env_class(env_name)
        for problems in (env_class.problems(None, "train"), env_class.problems(None, "heldout"), aside[env_name]):
            assert not shown & {problem.hash for problem in problems}
