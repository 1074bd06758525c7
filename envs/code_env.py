"""Code: write a program or function, alone or together with a partner who writes tests for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from envs.base import Ask, Env, Play, Split
from envs.grading.code_tests import CallTest, StdioTest, Verdict, judge
from envs.problems.code_problems import CodeProblem, Test, code_problems
from envs.replies import json_block, python_block

SOLVE = """Solve the task in Python. Reply with one Python code block.

Task: {statement}"""

REPAIR = """{prompt}

Your last code:
{code}
{failures}
Write the code again."""

NO_CODE = """{prompt}

Your last reply had no Python code block."""

WRITE_TESTS = """Write two small tests for the task. Reply with one JSON code block: a list of objects with {fields}.

Task: {statement}"""

REWRITE_TESTS = """{prompt}

Your last tests and a solution differ:
{failures}
The solution or the tests are wrong. Write the tests again."""

NO_TESTS = """{prompt}

Your last reply had no tests in that form."""

STDIO_FIELDS = '"input" and "output"'
CALL_FIELDS = '"args" and "expected"'

MAX_TESTS = 8
"""Tests of one reply that are run; a tester cannot make an episode arbitrarily slow."""
MAX_FAILURES = 3
"""Failures that are shown to a player."""


class CodeEnv(Env):
    """A coder alone, or a coder and a tester who refine until the code passes the tests or turns run out.

    Players learn how the code does on the examples of the statement and on the tester's tests. The answer is the last
    code that passes the examples, or the last code if none does: a wrong test cannot talk a coder out of it. Hidden
    tests decide whether the answer is right.
    """

    roles = ("code_generator", "test_generator")
    seatings = (("code_single_agent",), ("code_generator",), roles)

    problem: CodeProblem

    @classmethod
    def problems(cls, source: str | None, split: Split | None) -> Sequence[CodeProblem]:
        return code_problems(source, split)

    def play(self) -> Play:
        # Hidden tests mark every version of the code as it comes, but nothing below looks at their verdict.
        coder, *testers = self.seats
        solve = SOLVE.format(statement=self.problem.statement)
        write = WRITE_TESTS.format(statement=self.problem.statement, fields=self._test_fields)
        to_ask = [self.ask(coder, solve), *(self.ask(tester, write) for tester in testers)]
        source: str | None = None
        tests: list[Test] = []
        self.success = solved = passed_examples = False
        while True:
            for ask, reply in zip(to_ask, (yield to_ask), strict=True):
                if ask.role == coder:
                    source = python_block(reply)
                    solved = ask.success = self._solves(source)
                    ask.reward = float(solved)
                else:
                    tests = self._read_tests(reply)
                    ask.reward = self._share_right(tests)
                    ask.success = ask.reward == 1.0
            failures = self._failures(source, [*self.problem.public_tests, *tests]) if source else []
            passes_examples = source is not None and not any(t in self.problem.public_tests for t, _ in failures)
            if passes_examples or not passed_examples:
                self.success = solved
            passed_examples = passed_examples or passes_examples
            to_ask = []
            if not self.turns_left:
                break
            if source is None:
                to_ask.append(self.ask(coder, NO_CODE.format(prompt=solve)))
            elif failures:
                shown = _show_failures(failures)
                to_ask.append(self.ask(coder, REPAIR.format(prompt=solve, code=source, failures=shown)))
            for tester in testers:
                if not tests:
                    to_ask.append(self.ask(tester, NO_TESTS.format(prompt=write)))
                elif source and any(test in tests for test, _ in failures):
                    shown = _show_failures([(test, verdict) for test, verdict in failures if test in tests])
                    to_ask.append(self.ask(tester, REWRITE_TESTS.format(prompt=write, failures=shown)))
            if not to_ask:
                break

    @property
    def _test_fields(self) -> str:
        return CALL_FIELDS if self.problem.function else STDIO_FIELDS

    def _failures(self, source: str, tests: Sequence[Test]) -> list[tuple[Test, Verdict]]:
        """Those of the tests that the code does not pass, with what came out."""
        verdicts = self._judge(source, tests)
        return [(test, verdict) for test, verdict in zip(tests, verdicts, strict=True) if verdict.status != "accepted"]

    def _judge(self, source: str, tests: Sequence[Test], stop_at_first_failure: bool = False) -> list[Verdict]:
        full_source = self.problem.prelude + source
        return judge(self.sandbox, full_source, tests, self.problem.function, stop_at_first_failure)

    def _solves(self, source: str | None) -> bool:
        if source is None:
            return False
        verdicts = self._judge(source, self.problem.hidden_tests, stop_at_first_failure=True)
        return all(verdict.status == "accepted" for verdict in verdicts)

    def _share_right(self, tests: Sequence[Test]) -> float:
        """Share of the tester's tests that the reference solution passes; 0 for no tests."""
        if not tests:
            return 0.0
        verdicts = judge(self.sandbox, self.problem.reference, tests, self.problem.function, False)
        return sum(verdict.status == "accepted" for verdict in verdicts) / len(tests)

    def _read_tests(self, reply: str) -> list[Test]:
        """The tests of a reply; none if any of it is in the wrong form."""
        try:
            rows = json.loads(json_block(reply) or "null")
            json.dumps(rows, ensure_ascii=False).encode()  # a lone surrogate could stand in no prompt and no file
        except (ValueError, RecursionError):  # ValueError: also an integer of more than 4300 digits
            return []
        if not isinstance(rows, list):
            return []
        tests = [self._read_test(row) for row in rows[:MAX_TESTS]]
        return [test for test in tests if test is not None] if None not in tests else []

    def _read_test(self, row: Any) -> Test | None:
        match row:
            case {"input": str(given), "output": str(wanted)} if not self.problem.function:
                return StdioTest(input=given, output=wanted)
            case {"args": list(args), "expected": wanted} if self.problem.function:
                return CallTest(args=tuple(args), expected=wanted)
        return None

    def gold(self, ask: Ask) -> str:
        if ask.role != "test_generator":
            return f"```python\n{self.problem.reference.removeprefix(self.problem.prelude)}```"
        rows = [
            {"input": test.input.strip(), "output": test.output.strip()}
            if isinstance(test, StdioTest)
            else {"args": list(test.args), "expected": test.expected}
            for test in self.problem.gold_tests
        ]
        return f"```json\n{json.dumps(rows)}\n```"


def _show_failures(failures: Sequence[tuple[Test, Verdict]]) -> str:
    return "\n".join(_show(test, verdict) for test, verdict in failures[:MAX_FAILURES])


def _show(test: Test, verdict: Verdict) -> str:
    """One failure in words, from what the players wrote or may see: never from a hidden test."""
    got = verdict.got.strip() if verdict.status == "wrong_answer" else f"{verdict.status} {verdict.error}".strip()
    if isinstance(test, StdioTest):
        return f"Input: {test.input.strip()}\nExpected: {test.output.strip()}\nGot: {got}"
    if isinstance(test, CallTest):
        args = ", ".join(map(repr, test.args))
        return f"Input: {args}\nExpected: {test.expected!r}\nGot: {got}"
    return f"Got: {got}"
