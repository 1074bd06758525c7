"""Problems whose reference answer does not win are found before anything is played, and named."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from envs.base import Ask, Env, EnvConfig, Play
from envs.code_env import CodeEnv
from envs.faults import ServiceError
from envs.grading import GradingError
from envs.sandbox.base import Sandbox, SandboxConfig
from tasks.rollout.problem_check import ProblemCheck, check_problems, needs_check
from tests.tasks.rollout import adding_game as games

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


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the check itself has logged; what an earlier test left may be collected, and complain, at any time."""
    return [record.message for record in caplog.records if record.name == "tasks.rollout.problem_check"]


def test_a_problem_whose_solution_fails_its_tests_is_left_out_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = check(tmp_path, 6, 6)
    assert found.checked == 6
    assert [reason.partition(":")[0] for reason in found.failures.values()] == ["101", "104"]
    [message] = said(caplog)
    assert "left out: 2 of 6 problems, whose reference answers fail (101: " in message


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
    class NobodyKnows(games.AddingGame):
        def gold(self, ask: Ask) -> str:
            raise NotImplementedError("nobody knows")

    found = check_problems(games.add_problems(3), 3, NobodyKnows, EnvConfig(name="adding"), SandboxConfig())
    assert found == ProblemCheck(checked=0, failures={})


def check_game(env_class: type[Env], count: int, wanted: int, timeout_s: float = 30.0) -> ProblemCheck:
    env = EnvConfig(name="adding", timeout_s=timeout_s)
    return check_problems(games.add_problems(count), wanted, env_class, env, SandboxConfig())


@pytest.mark.parametrize(
    ("env_class", "reason"),
    [
        (games.QuittingGame, "SystemExit: 3"),
        (games.EndlessGame, "RuntimeError: EndlessGame asked adder for more than max_turns=3 turns"),
        (games.EchoingGame, "RuntimeError: EchoingGame asked adder for more than max_turns=3 turns"),
        (games.ForgetfulGame, "RuntimeError: ForgetfulGame.play ended without setting success"),
        (games.UnwritableGame, "TypeError: Object of type set is not JSON serializable"),
        (games.StuckAtFirstGame, "EnvTimeout: StuckAtFirstGame was not back within env.timeout_s=0.3 s"),
    ],
)
def test_an_env_that_fails_in_all_of_the_first_problems_is_tried_on_no_others(
    env_class: type[Env], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    played = set()

    class CountedGame(env_class):  # type: ignore[misc, valid-type]
        def __init__(self, problem: games.Sum, config: EnvConfig, sandbox: Sandbox) -> None:
            played.add(problem.answer)
            super().__init__(problem, config, sandbox)

    CountedGame.__name__ = env_class.__name__
    began = time.monotonic()
    with pytest.raises(ValueError, match="failed in each of the first 8 problems") as caught:
        check_game(CountedGame, 50, 50, timeout_s=0.3 if env_class is games.StuckAtFirstGame else 30)
    assert time.monotonic() - began < 20
    assert played == set(range(1, 9))
    assert f"Mend what the log shows: {reason}" in str(caught.value)
    assert "\n" not in str(caught.value)
    [message] = said(caplog)
    assert "Traceback" in message or "in wait_for_ever" in message


@pytest.mark.parametrize(("env_class", "kind"), [(games.RaisingGame, "LookupError"), (games.StuckGame, "EnvTimeout")])
def test_problems_in_which_the_env_itself_fails_are_not_left_out(
    env_class: type[Env], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert check_game(env_class, 20, 20, timeout_s=1) == ProblemCheck(checked=20, failures={})
    [message] = said(caplog)
    assert (
        "adding failed in 2 of 20 problems when their reference answers were played; they are not left out. The "
        f"first failure was {kind}: " in message
    )
    assert "adding_game.py" in message


def test_a_problem_that_says_itself_that_nobody_can_be_judged_is_left_out() -> None:
    class BrokenJudgeGame(games.AddingGame):
        def play(self) -> Play:
            yield from super().play()
            if self.problem.answer == 2:
                raise GradingError("the judge fails its own test")

    problems = games.add_problems(3)
    assert check_game(BrokenJudgeGame, 3, 3).failures == {
        problems[1].hash: f"{problems[1].hash}: the judge fails its own test"
    }


def test_a_reference_answer_that_lost_under_load_is_tried_once_more_and_alone() -> None:
    all_at_work = threading.Barrier(4)
    tries: Counter[int] = Counter()
    at_work: set[int] = set()

    class LoadedGame(games.AddingGame):
        """Loses at first, and later if another is played at the same time."""

        def play(self) -> Play:
            tries[self.problem.answer] += 1
            at_work.add(self.problem.answer)
            yield [self.ask("adder", self.problem.statement)]
            if tries[self.problem.answer] == 1:
                all_at_work.wait(20)
            else:
                time.sleep(0.05)
            self.success = tries[self.problem.answer] == 2 and len(at_work) == 1
            at_work.remove(self.problem.answer)

    assert check_game(LoadedGame, 4, 4) == ProblemCheck(checked=4, failures={})
    assert tries == {1: 2, 2: 2, 3: 2, 4: 2}


def test_a_service_that_is_down_ends_the_check() -> None:
    class ServedGame(games.AddingGame):
        def play(self) -> Play:
            yield from super().play()
            raise ServiceError("the search endpoint is down")

    with pytest.raises(ServiceError, match="the search endpoint is down"):
        check_game(ServedGame, 9, 9)


def test_built_in_problems_of_shipped_envs_are_not_checked_again() -> None:
    assert not needs_check(EnvConfig(name="math_env"))
    assert needs_check(EnvConfig(name="math_env", dataset="x.jsonl"))
    assert needs_check(EnvConfig(name="math_env", benchmark="x.jsonl"))
    assert needs_check(EnvConfig(name="my_env:Mine"))
