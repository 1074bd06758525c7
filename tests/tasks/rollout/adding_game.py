"""The smallest env, for tests of the loop: two players add numbers, and may fail in every way that an env can."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from envs.base import Ask, Env, EnvOptions, Message, Play, Problem, Split
from envs.sandbox.base import CallResult, Run, SandboxError


class NoSandbox:
    """For an env that runs no code."""

    tier = "none"

    def run(self, source: str, stdin: str = "") -> Run:
        raise SandboxError("no sandbox here")

    def run_each(self, source: str, stdins: Sequence[str], until: Callable[[Run], bool] | None = None) -> list[Run]:
        raise SandboxError("no sandbox here")

    def call(self, source: str, function: str, calls: Sequence[Sequence[object]]) -> list[CallResult]:
        raise SandboxError("no sandbox here")


@dataclass(frozen=True, kw_only=True)
class Sum(Problem):
    answer: int


class AddingOptions(EnvOptions):
    hint: str = ""


def add_problems(count: int) -> list[Sum]:
    return [Sum(statement=f"{n} + 1", answer=n + 1, difficulty=1) for n in range(count)]


class AddingGame(Env):
    """One role, one turn: right or wrong."""

    roles: ClassVar[tuple[str, ...]] = ("adder",)
    Options = AddingOptions

    @classmethod
    def problems(cls, source: str | None, split: Split | None) -> Sequence[Problem]:
        return add_problems(100)

    def play(self) -> Play:
        (reply,) = yield [self.ask("adder", self.problem.statement)]
        self.success = reply.strip() == str(self.problem.answer)

    def gold(self, ask: Ask) -> str:
        return str(self.problem.answer)


class PairGame(AddingGame):
    """Two roles at once, again until they agree; the conversation of the adder is one list that grows."""

    roles = ("adder", "checker")

    def play(self) -> Play:
        talk: list[Message] = [{"role": "user", "content": self.problem.statement}]
        while self.turns_left:
            adder, checker = self.ask("adder", talk), self.ask("checker", self.problem.statement)
            checker.reward, checker.success = 0.5, False
            first, second = yield [adder, checker]
            if first == second:
                break
            talk += [{"role": "assistant", "content": first}, {"role": "user", "content": "Again."}]
        self.success = first == str(self.problem.answer)


class RaisingGame(AddingGame):
    """Raises on every tenth problem."""

    def play(self) -> Play:
        yield from super().play()
        if self.problem.answer % 10 == 0:
            raise LookupError(f"no {self.problem.answer} here")


def wait_for_ever() -> None:
    while True:
        time.sleep(1)


class StuckAtFirstGame(AddingGame):
    def play(self) -> Play:
        wait_for_ever()
        yield from super().play()


class StuckGame(AddingGame):
    """Does not come back after the reply, on every tenth problem."""

    def play(self) -> Play:
        yield from super().play()
        if self.problem.answer % 10 == 0:
            wait_for_ever()


class StuckAtCloseGame(AddingGame):
    """Does not know the turn limit, and cannot be ended."""

    def play(self) -> Play:
        try:
            while True:
                yield [self.ask("adder", self.problem.statement)]
        finally:
            wait_for_ever()


class NoGeneratorGame(AddingGame):
    def play(self) -> Play:
        return [self.ask("adder", self.problem.statement)]  # type: ignore[return-value]


class ForgetfulGame(AddingGame):
    """Ends without a verdict."""

    def play(self) -> Play:
        yield [self.ask("adder", self.problem.statement)]


class EndlessGame(AddingGame):
    """Does not know the turn limit."""

    def play(self) -> Play:
        while True:
            yield [self.ask("adder", self.problem.statement)]


class EchoingGame(AddingGame):
    """Yields one ask again and again."""

    def play(self) -> Play:
        ask = self.ask("adder", self.problem.statement)
        while True:
            yield [ask]


class AskingNobodyGame(AddingGame):
    def play(self) -> Play:
        while True:
            yield []


class QuittingGame(AddingGame):
    def play(self) -> Play:
        raise SystemExit(3)
        yield


class NotANumberGame(AddingGame):
    def play(self) -> Play:
        yield [ask := self.ask("adder", self.problem.statement)]
        ask.reward, self.success = float("nan"), True


class UnsayableGame(AddingGame):
    def play(self) -> Play:
        yield [self.ask("adder", "half a pair: \ud800")]


class UnwritableGame(AddingGame):
    def play(self) -> Play:
        yield from super().play()
        self.metadata["seen"] = {1, 2}


class SandboxGame(AddingGame):
    def play(self) -> Play:
        yield from super().play()
        self.sandbox.run("print(1)")
