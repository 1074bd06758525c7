"""Problems whose reference answer does not win are found before anything is played, and named."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from envs.base import Ask, EnvConfig
from envs.code_env import CodeEnv
from envs.sandbox.base import SandboxConfig
from tasks.rollout.problem_check import ProblemCheck, check_problems, needs_check
from tests.tasks.rollout.adding_game import AddingGame, add_problems

BROKEN = {1, 4}


def mbpp_rows(count: int) -> list[dict[str, Any]]:
    """Rows in MBPP's layout; the solutions of those in `BROKEN` are off by one."""
    return [
        {
            "task_id": 100 + i,
            "text": f"Write a function to add {i} to a number.",
            "code": f"def add(x):\n    return x + {i + (i in BROKEN)}",
            "test_list": [f"assert add({n}) == {n + i}" for n in (1, 5)],
        }
        for i in range(count)
    ]


def check(tmp_path: Path, count: int, wanted: int) -> ProblemCheck:
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in mbpp_rows(count)))
    env = EnvConfig(name="code_env", dataset=str(file), roles=("code_single_agent",))
    return check_problems(CodeEnv.problems(str(file), None), wanted, CodeEnv, env, SandboxConfig())


def test_a_problem_whose_solution_fails_its_tests_is_left_out_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = check(tmp_path, 6, 6)
    assert found.checked == 6
    assert [reason.partition(":")[0] for reason in found.failures.values()] == ["101", "104"]
    (record,) = caplog.records
    assert "left out: 2 of 6 problems, whose reference answers fail (101: " in record.message


def test_no_more_is_checked_than_is_to_be_played(tmp_path: Path) -> None:
    assert check(tmp_path, 6, 1) == ProblemCheck(checked=1, failures={})
    found = check(tmp_path, 6, 3)
    assert (found.checked, len(found.failures)) == (4, 1)


def test_a_file_in_which_nothing_is_sound_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text(json.dumps(mbpp_rows(2)[1]) + "\n")
    env = EnvConfig(name="code_env", dataset=str(file), roles=("code_single_agent",))
    with pytest.raises(ValueError, match="no reference answer of 1 problems wins in code_env"):
        check_problems(CodeEnv.problems(str(file), None), 5, CodeEnv, env, SandboxConfig())


def test_an_env_without_reference_answers_is_played_unchecked() -> None:
    class NobodyKnows(AddingGame):
        def gold(self, ask: Ask) -> str:
            raise NotImplementedError("nobody knows")

    found = check_problems(add_problems(3), 3, NobodyKnows, EnvConfig(name="adding"), SandboxConfig())
    assert found == ProblemCheck(checked=0, failures={})


def test_built_in_problems_of_shipped_envs_are_not_checked_again() -> None:
    assert not needs_check(EnvConfig(name="math_env"))
    assert needs_check(EnvConfig(name="math_env", dataset="x.jsonl"))
    assert needs_check(EnvConfig(name="math_env", benchmark="x.jsonl"))
    assert needs_check(EnvConfig(name="my_env:Mine"))
