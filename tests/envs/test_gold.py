"""Reference answers played without a model: what is said of an env that does not play by the rules."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from envs.base import Ask, Env, EnvConfig, Play
from envs.gold import check_gold, play_gold
from tests.tasks.rollout import adding_game as games

ROOT = Path(__file__).parents[2]
STUCK_ENV = """
from tests.tasks.rollout.adding_game import AddingGame, wait_for_ever

class Stuck(AddingGame):
    def play(self):
        print("playing", flush=True)
        wait_for_ever()
        yield
"""


@pytest.mark.parametrize(
    ("env_class", "reason"),
    [
        (games.EndlessGame, "RuntimeError: EndlessGame asked adder for more than max_turns=3 turns"),
        (games.EchoingGame, "RuntimeError: EchoingGame asked adder for more than max_turns=3 turns"),
        (games.AskingNobodyGame, "TypeError: AskingNobodyGame.play yielded []; wanted a list of asks, at least one"),
        (games.ForgetfulGame, "RuntimeError: ForgetfulGame.play ended without setting success"),
    ],
)
def test_an_env_that_breaks_a_rule_is_named_with_the_rule(env_class: type[Env], reason: str) -> None:
    [failure] = check_gold(env_class, games.add_problems(1), EnvConfig(name="adding"), games.NoSandbox())
    assert failure is not None
    assert failure.reason == reason


def test_as_many_turns_as_there_may_be_are_played() -> None:
    class PatientGame(games.AddingGame):
        def play(self) -> Play:
            while self.turns_left:
                yield [self.ask("adder", self.problem.statement)]
            self.success = True

    assert play_gold(PatientGame(games.add_problems(1)[0], EnvConfig(name="adding"), games.NoSandbox()))


def test_failures_come_in_the_order_of_the_problems() -> None:
    checked = list(check_gold(games.RaisingGame, games.add_problems(20), EnvConfig(name="adding"), games.NoSandbox()))
    assert [i for i, failure in enumerate(checked) if failure is not None] == [9, 19]


def test_an_env_without_reference_answers_ends_the_check_at_once() -> None:
    asked = []

    class NobodyKnows(games.AddingGame):
        def gold(self, ask: Ask) -> str:
            asked.append(ask)
            raise NotImplementedError("nobody knows")

    with pytest.raises(NotImplementedError, match="nobody knows"):
        list(check_gold(NobodyKnows, games.add_problems(10_000), EnvConfig(name="adding"), games.NoSandbox()))
    assert len(asked) < 10_000


def test_the_check_of_an_env_that_blocks_ends_at_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "stuck_env.py").write_text(STUCK_ENV)
    command = [sys.executable, "-m", "envs.problems", "check", "--env.name", "stuck_env:Stuck"]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("playing")  # several threads may say so at once
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
        finally:
            process.kill()
