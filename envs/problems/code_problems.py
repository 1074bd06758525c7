"""Problems for code_env: generated list and text tasks, and those of files."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from envs.base import Split
from envs.grading.code_tests import CallTest, StdioTest, Test
from envs.problems.code_files import CODE_LAYOUTS
from envs.problems.files import load_problems, reader_of
from envs.problems.kinds import CodeProblem
from envs.problems.splits import select_split, split_of_builtin

__all__ = ["CodeProblem", "Test", "builtin", "code_problems"]

SPLIT_SIZES: dict[Split, int] = {"starter": 6_000, "train": 3_000, "heldout": 1_000}


def code_problems(source: str | None, split: Split | None) -> Sequence[CodeProblem]:
    """Built-in problems, or those of a file in one of `CODE_LAYOUTS`."""
    if source is not None:
        return select_split(load_problems(source, reader_of(CODE_LAYOUTS)), split)
    return builtin(split) if split else [p for s in SPLIT_SIZES for p in builtin(s)]


@dataclass(frozen=True)
class Step:
    """One step of a list task: how it is said (one wording is drawn), what it computes, and how it is written."""

    key: str
    words: tuple[str, ...]
    code: str
    """A filter's condition or a map's value over `x`, or a reduction's expression over `{xs}`."""


FILTERS: tuple[Callable[[int], Step], ...] = (
    lambda k: Step("even", ("the even numbers", "the numbers that are even"), "x % 2 == 0"),
    lambda k: Step("odd", ("the odd numbers", "the numbers that are odd"), "x % 2 != 0"),
    lambda k: Step("positive", ("the positive numbers", "the numbers above zero"), "x > 0"),
    lambda k: Step("negative", ("the negative numbers", "the numbers below zero"), "x < 0"),
    lambda k: Step(f"gt {k}", (f"the numbers greater than {k}", f"the numbers above {k}"), f"x > {k}"),
    lambda k: Step(f"lt {k}", (f"the numbers less than {k}", f"the numbers below {k}"), f"x < {k}"),
    lambda k: Step(f"ge {k}", (f"the numbers that are at least {k}",), f"x >= {k}"),
    lambda k: Step(f"le {k}", (f"the numbers that are at most {k}",), f"x <= {k}"),
    lambda k: Step(
        f"div {k % 7 + 3}",
        (f"the numbers divisible by {k % 7 + 3}", f"the multiples of {k % 7 + 3}"),
        f"x % {k % 7 + 3} == 0",
    ),
    lambda k: Step(f"ne {k}", (f"the numbers that are not {k}", f"the numbers other than {k}"), f"x != {k}"),
)
MAPS: tuple[Callable[[int], Step], ...] = (
    lambda k: Step("square", ("squared", "after squaring each"), "x * x"),
    lambda k: Step("double", ("doubled", "after doubling each"), "2 * x"),
    lambda k: Step("negate", ("negated", "with the sign of each changed"), "-x"),
    lambda k: Step("abs", ("without their signs", "as absolute values"), "abs(x)"),
    lambda k: Step(f"add {k + 1}", (f"with {k + 1} added to each", f"each increased by {k + 1}"), f"x + {k + 1}"),
    lambda k: Step(
        f"sub {k + 1}", (f"with {k + 1} subtracted from each", f"each decreased by {k + 1}"), f"x - {k + 1}"
    ),
    lambda k: Step(f"mul {k % 7 + 3}", (f"each times {k % 7 + 3}", f"multiplied by {k % 7 + 3}"), f"x * {k % 7 + 3}"),
)
NUMBER_REDUCTIONS: tuple[Step, ...] = (
    Step("sum", ("the sum of", "the total of"), "sum({xs})"),
    Step("max", ("the largest of", "the maximum of"), "max({xs}, default=0)"),
    Step("min", ("the smallest of", "the minimum of"), "min({xs}, default=0)"),
    Step("count", ("how many there are of", "the count of"), "len({xs})"),
    Step("range", ("the largest minus the smallest of",), "max({xs}, default=0) - min({xs}, default=0)"),
    Step("distinct", ("how many different values there are among",), "len(set({xs}))"),
)
LIST_REDUCTIONS: tuple[Step, ...] = (
    Step("list", ("in the given order,", "in their order,"), "{xs}"),
    Step("reversed", ("in reverse order,", "from last to first,"), "{xs}[::-1]"),
    Step("sorted", ("in ascending order,", "sorted from small to large,"), "sorted({xs})"),
    Step("descending", ("in descending order,", "sorted from large to small,"), "sorted({xs}, reverse=True)"),
    Step("unique", ("without repeats, in ascending order,",), "sorted(set({xs}))"),
)
EMPTY_IS_ZERO = {"max", "min", "range"}
READ = (
    "Read integers from one line. Print {what}.",
    "The input is one line of integers. Print {what}.",
    "Write a program that reads a line of integers and prints {what}.",
)
RETURN = (
    "Write a function solve(numbers) that returns {what}.",
    "Given a list of integers, solve(numbers) returns {what}. Write solve.",
    "Define solve(numbers), which takes a list of integers and gives back {what}.",
)


GOLD_TEST_INPUTS = ([2, -3, 5], [8, -6, 15, 8])
_PROBES = (
    *([x] for x in range(-21, 32)),
    [],
    [7, -4, 12, 12, -9, 0, 30],
    [-15, 21, 3, 3, 18, -6],
    [25, 10, -10, 5, -1, 14, 9, 9],
)
"""What two tasks are told apart by. Every number that may come up stands alone in one."""


@dataclass(frozen=True)
class Task:
    """What is to be computed from a list of integers: keep some, change each, reduce to a number or a list."""

    keep: Step | None
    change: Step | None
    reduce: Step

    @property
    def content(self) -> str:
        """By what it computes: "at least 6" is "greater than 5", and numbers are as many as their doubles."""
        return f"code {_behaviour(self.expression)}"

    @property
    def gives_list(self) -> bool:
        return self.reduce in LIST_REDUCTIONS

    @property
    def expression(self) -> str:
        numbers = "numbers"
        if self.keep or self.change:
            condition = f" if {self.keep.code}" if self.keep else ""
            numbers = f"[{self.change.code if self.change else 'x'} for x in numbers{condition}]"
        return self.reduce.code.format(xs=numbers)

    @property
    def difficulty(self) -> int:
        hard = self.gives_list or self.reduce.key in {"range", "distinct"}
        return max(1, (self.keep is not None) + (self.change is not None) + hard)


@cache
def _behaviour(expression: str) -> str:
    """Hash of what an expression over `numbers` gives for each of `_PROBES`."""
    compute = eval(f"lambda numbers: {expression}")
    return hashlib.sha256(repr([compute(numbers) for numbers in _PROBES]).encode()).hexdigest()[:16]


@cache
def builtin(split: Split) -> tuple[CodeProblem, ...]:
    """The generated problems of a split: the same ones in every process, easy and hard ones mixed."""
    rng = random.Random(f"code_env {split}")
    found: dict[str, CodeProblem] = {}
    while len(found) < SPLIT_SIZES[split]:
        task = _draw(rng)
        content = task.content
        if content in found or split_of_builtin(content) != split:
            continue
        problem = _pose(task, rng)
        if problem is not None:
            found[content] = problem
    return tuple(found.values())


def _draw(rng: random.Random) -> Task:
    return Task(
        keep=rng.choice(FILTERS)(rng.randint(0, 20)) if rng.random() < 0.8 else None,
        change=rng.choice(MAPS)(rng.randint(0, 20)) if rng.random() < 0.6 else None,
        reduce=rng.choice(NUMBER_REDUCTIONS if rng.random() < 0.65 else LIST_REDUCTIONS),
    )


def _pose(task: Task, rng: random.Random) -> CodeProblem | None:
    """The task in words, with tests; None if the numbers drawn give too few different results to tell a guess."""
    compute = eval(f"lambda numbers: {task.expression}")
    inputs = [_numbers(rng) for _ in range(10)]
    values = [compute(numbers) for numbers in inputs]
    if len({repr(value) for value in values}) < 4:
        return None
    is_program = rng.random() < 0.5
    tests = [_test(numbers, value, is_program) for numbers, value in zip(inputs, values, strict=True)]
    sentence = rng.choice(READ if is_program else RETURN).format(what=_describe(task, rng))
    return CodeProblem(
        statement="\n".join([sentence, *map(_example, tests[:2])]),
        content=task.content,
        difficulty=task.difficulty,
        function=None if is_program else "solve",
        public_tests=tuple(tests[:2]),
        hidden_tests=tuple(tests[2:]),
        reference=_source(task.expression, is_program, task.gives_list),
        gold_tests=tuple(_test(numbers, compute(numbers), is_program) for numbers in GOLD_TEST_INPUTS),
    )


def _describe(task: Task, rng: random.Random) -> str:
    kept = rng.choice(task.keep.words) if task.keep else "the numbers"
    changed = f", {rng.choice(task.change.words)}" if task.change else ""
    nothing = ", or 0 if there are none" if task.reduce.key in EMPTY_IS_ZERO else ""
    return f"{rng.choice(task.reduce.words)} {kept}{changed}{nothing}"


def _numbers(rng: random.Random) -> list[int]:
    numbers = [rng.randint(-20, 30) for _ in range(rng.randint(3, 6))]
    if rng.random() < 0.4:
        numbers.append(rng.choice(numbers))
    return numbers


def _test(numbers: list[int], value: Any, is_program: bool) -> StdioTest | CallTest:
    if not is_program:
        return CallTest(args=(numbers,), expected=value)
    printed = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return StdioTest(input=" ".join(map(str, numbers)) + "\n", output=printed + "\n")


def _example(test: StdioTest | CallTest) -> str:
    if isinstance(test, CallTest):
        return f"Example: solve({test.args[0]}) is {test.expected}"
    return f"Example: {test.input.strip()} gives {test.output.strip() or 'an empty line'}"


def _source(expression: str, is_program: bool, gives_list: bool) -> str:
    if not is_program:
        return f"def solve(numbers):\n    return {expression}\n"
    printed = f"*{expression}" if gives_list else expression
    return f"numbers = list(map(int, input().split()))\nprint({printed})\n"
