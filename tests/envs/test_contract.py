"""Every registered env keeps the promises of `envs.testing`."""

from __future__ import annotations

import pytest

from envs import ENV_CLASS_MAPPING, load_env_class
from envs.base import Ask, Env, EnvConfig, Play, Problem, Split
from envs.testing import check_env


@pytest.mark.parametrize("name", sorted(ENV_CLASS_MAPPING))
def test_a_registered_env_keeps_every_promise(name: str) -> None:
    check_env(load_env_class(name), EnvConfig(name=name))


class Guess(Env):
    """A correct little env, to be broken by the tests below."""

    roles = ("guesser",)

    @classmethod
    def problems(cls, source: str | None, split: Split | None) -> list[Problem]:
        return [Problem(statement=f"{split} {n}") for n in range(3)]

    def play(self) -> Play:
        (reply,) = yield [self.ask("guesser", self.problem.statement)]
        self.success = reply == "gold"

    def gold(self, ask: Ask) -> str:
        return "gold"


def test_a_correct_custom_env_passes() -> None:
    check_env(Guess)


def test_an_env_that_its_own_gold_does_not_solve_is_caught() -> None:
    class Unsolvable(Guess):
        def gold(self, ask: Ask) -> str:
            return "lead"

    with pytest.raises(AssertionError, match="reference answer does not score success"):
        check_env(Unsolvable)


def test_an_env_that_rewards_garbage_is_caught() -> None:
    class Generous(Guess):
        def play(self) -> Play:
            yield [self.ask("guesser", self.problem.statement)]
            self.success = True

    with pytest.raises(AssertionError, match="garbage replies end with success"):
        check_env(Generous)


def test_splits_that_share_content_are_caught() -> None:
    class Leaky(Guess):
        @classmethod
        def problems(cls, source: str | None, split: Split | None) -> list[Problem]:
            return [Problem(statement="the same")]

    with pytest.raises(AssertionError, match="share content"):
        check_env(Leaky)


def test_an_env_that_never_stops_asking_is_caught() -> None:
    class Endless(Guess):
        def play(self) -> Play:
            for _ in range(9):
                (reply,) = yield [self.ask("guesser", self.problem.statement)]
                if reply == "gold":
                    break
            self.success = reply == "gold"

    with pytest.raises(AssertionError, match="more than max_turns"):
        check_env(Endless)


def test_an_unknown_env_is_named_with_its_nearest_and_all_known_ones() -> None:
    with pytest.raises(ValueError, match=r"Did you mean math_env\? Known: code_env, math_env"):
        load_env_class("mathenv")


def test_an_env_is_found_by_its_dotted_path() -> None:
    assert load_env_class("envs.math_env:MathEnv") is load_env_class("math_env")


def test_a_dotted_path_to_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="inherits"):
        load_env_class("envs.base:Problem")


def test_roles_that_an_env_does_not_have_are_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match=r"it takes .*math_single_agent"):
        load_env_class("math_env").seats_for(EnvConfig(name="math_env", roles=("poet",)))
