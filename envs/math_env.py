r"""Math: reason to a final answer in \boxed{}, alone or together with a partner who writes Python."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence

from envs.base import Ask, Env, Play, Split
from envs.grading.math_answer import extract_answer, is_equivalent
from envs.problems.math_problems import MathProblem, math_problems
from envs.replies import python_block

SOLVE = r"""Solve the problem step by step. Give the final answer in \boxed{{}}.

Problem: {statement}"""

NO_BOX = r"""{prompt}

Your last reply had no final answer in \boxed{{}}. Give it."""

PROGRAM = """Write a short Python program that prints the answer to the problem. Reply with one Python code block.

Problem: {statement}"""

RECONSIDER = r"""{prompt}

You answered: {mine}
Your partner's program printed: {theirs}
They differ. Check both, then give the final answer in \boxed{{}}."""

REPROGRAM = """{prompt}

Your program printed: {mine}
Your partner answered: {theirs}
They differ. Check both, then write the program again."""

NOTHING = "nothing"

_SPACING = re.compile(r"\\[,!;:> ]|~|\{\}")
"""TeX for spaces of any width: it says nothing, and must not hide anything."""
_WRAPPER = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_INTEGER = re.compile(r"-?\d+(?:\.0*)?", re.ASCII)
_NUMBER = re.compile(
    r"(?:[A-Za-z ]+(?:[:=]| is ))?\s*\\?\$?\s*"  # x = $
    r"[-+\u2212]?\s*\\?\$?\s*(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?"
    r"\s*(?:\\?%|[A-Za-z. ]*)\$?",  # the unit
    re.ASCII,
)
_FRACTION = re.compile(r"-?\s*\d+\s*/\s*\d+", re.ASCII)
_UNWORKED = re.compile(
    r"[+*^\u00d7\u00b7\u00f7]|\\(?:times|cdot|div)\b|[\d)}\]|]\s*[-\u2212/]\s*[\d.({\\\[|]",
)


class MathEnv(Env):
    """One agent alone, or a reasoner and a programmer who refine until they agree or run out of turns."""

    roles = ("reasoning_generator", "tool_generator")
    seatings = (("math_single_agent",), ("reasoning_generator",), roles)

    problem: MathProblem

    @classmethod
    def problems(cls, source: str | None, split: Split | None) -> Sequence[MathProblem]:
        return math_problems(source, split)

    def play(self) -> Play:
        answer = yield from (self._play_together() if len(self.seats) == 2 else self._play_alone(self.seats[0]))
        self.success = self._is_right(answer)

    def _play_alone(self, role: str) -> Generator[list[Ask], list[str], str | None]:
        prompt = first = SOLVE.format(statement=self.problem.statement)
        while True:
            ask = self.ask(role, prompt)
            (reply,) = yield [ask]
            answer = extract_answer(reply)
            self._score(ask, answer)
            if answer is not None or not self.turns_left:
                return answer
            prompt = NO_BOX.format(prompt=first)

    def _play_together(self) -> Generator[list[Ask], list[str], str | None]:
        reason = solve = SOLVE.format(statement=self.problem.statement)
        code = program = PROGRAM.format(statement=self.problem.statement)
        while True:
            asks = [self.ask("reasoning_generator", reason), self.ask("tool_generator", code)]
            thought, source = yield asks
            answer, printed = extract_answer(thought), self._print_of(source)
            self._score(asks[0], answer)
            self._score(asks[1], printed)
            agreed = answer is not None and printed is not None and is_equivalent(printed, answer)
            if agreed or not self.turns_left:
                return answer if answer is not None else printed
            mine, theirs = answer or NOTHING, printed or NOTHING
            reason = RECONSIDER.format(prompt=solve, mine=mine, theirs=theirs)
            code = REPROGRAM.format(prompt=program, mine=theirs, theirs=mine)

    def _print_of(self, reply: str) -> str | None:
        """What the program in a reply printed last, if it ran to its end and printed something."""
        source = python_block(reply)
        if source is None:
            return None
        run = self.sandbox.run(source)
        lines = run.stdout.split("\n") if run.ok else []
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), None)

    def _is_right(self, answer: str | None) -> bool:
        """Whether the answer equals the gold one, and is worked out: a box around the question earns nothing."""
        gold = self.problem.answer
        return answer is not None and _is_worked_out(answer, gold) and is_equivalent(answer, gold)

    def _score(self, ask: Ask, answer: str | None) -> None:
        ask.success = self._is_right(answer)
        ask.reward = float(ask.success)

    def gold(self, ask: Ask) -> str:
        if ask.role == "tool_generator":
            return f"```python\nprint({self.problem.expression})\n```"
        return f"{self.problem.solution}\n\\boxed{{{self.problem.answer}}}"


def _is_worked_out(answer: str, gold: str) -> bool:
    r"""Whether the answer has nothing left to compute that the gold one has not.

    Where the gold answer is an integer only a number will do, perhaps with a unit: 85.0, but not \frac{170}{2}.
    Elsewhere 7/2 or \frac{1}{2} is an answer, and a sum, product, quotient or power is none.
    """
    if _INTEGER.fullmatch(gold.replace(",", "")):
        plain = _WRAPPER.sub(r"\1", _SPACING.sub("", answer.replace("{,}", ",")))
        return _NUMBER.fullmatch(plain.strip().strip("$").strip()) is not None
    return not _is_unworked(answer) or _is_unworked(gold)


def _is_unworked(answer: str) -> bool:
    """Whether it is a sum, product, quotient or power that is still to be computed; one fraction is not."""
    plain = _SPACING.sub("", answer).strip().strip("$").strip()
    return _FRACTION.fullmatch(plain) is None and _UNWORKED.search(plain) is not None
