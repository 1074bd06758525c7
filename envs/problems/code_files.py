"""Rows of programming problem files, in the layouts of HumanEval, MBPP (see `mbpp.py`), APPS and CodeContests.

All tests of a row decide, however many they are. Those that the statement shows may be shown to players as well.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from envs.grading.code_tests import CallTest, CheckProgram, StdioTest
from envs.problems.files import Layout, Row, UnsolvableProblem
from envs.problems.kinds import CodeProblem
from envs.problems.mbpp import from_mbpp
from envs.python_source import is_python, parse_python

APPS_PRELUDE = """import collections, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import bisect, bisect_left, bisect_right, insort
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from functools import cache, cmp_to_key, lru_cache, reduce
from heapq import heapify, heappop, heappush, heappushpop, heapreplace, nlargest, nsmallest
from itertools import accumulate, chain, combinations, count, cycle, groupby, permutations, product, repeat
from math import ceil, comb, cos, exp, fabs, factorial, floor, gcd, inf, log, log2, pi, sin, sqrt, tan
from typing import Any, Dict, List, Optional, Set, Tuple, Union
"""
"""What APPS's own judge and the sites that its functions are from import before a solution. By name: `math.pow` in the
place of `pow` would break solutions."""

APPS_DIFFICULTIES = {"introductory": 1, "interview": 2, "competition": 3}
PYTHON3 = (3, "PYTHON3")
"""How CodeContests marks solutions in Python 3: the number of its enumeration, or the name."""
RATING_STEPS = (1200, 1600, 2000, 2400)
"""Codeforces ratings that part the difficulties 1 to 5."""
MAX_GOLD_CHARS = 200


def from_human_eval(row: Row) -> CodeProblem:
    """A row of https://github.com/openai/human-eval: complete `prompt` so that `check(entry_point)` passes."""
    prompt, name = str(row["prompt"]), str(row["entry_point"])
    definition = next(
        (n for n in parse_python(prompt).body if isinstance(n, ast.FunctionDef) and n.name == name),
        None,
    )
    if definition is None:
        raise ValueError(f"`prompt` does not define the entry point {name!r}")
    if not row.get("canonical_solution"):
        raise UnsolvableProblem("it has no reference solution")
    prelude = "".join(prompt.splitlines(keepends=True)[: definition.lineno - 1])
    reference = prompt + str(row["canonical_solution"])
    return CodeProblem(
        statement=f"Complete this Python function:\n```python\n{prompt.strip()}\n```",
        content=f"human-eval {prompt}",
        function=name,
        hidden_tests=(CheckProgram(entry_point=name, prelude=prelude, check=str(row["test"]), reference=reference),),
        reference=reference,
        prelude=prelude,
    )


def from_apps(row: Row) -> CodeProblem:
    """A row of https://github.com/hendrycks/apps: `solutions` and `input_output` are JSON in a string.

    With `fn_name` a function is called, or a method of a class `Solution` where the starter code has one.

    Raises:
        UnsolvableProblem: it has no tests, or no solution in Python 3.
    """
    question = _statement(row["question"])
    function, tests = _apps_tests(row)
    solution = _first_python(_list(_json_field(row, "solutions")))
    difficulty = APPS_DIFFICULTIES.get(str(row.get("difficulty")), 0)
    if function is None:
        programs = [StdioTest(_lines(given), _lines(wanted)) for given, wanted in tests]
        return _program(question, (), programs, solution, difficulty)
    calls = [_apps_call(given, wanted) for given, wanted in tests]
    starter = str(row.get("starter_code") or "").strip()
    in_class = "class Solution" in starter or "class Solution" in solution
    return CodeProblem(
        statement=f"{question}\n\n{_how_to_begin(starter, function, in_class)}",
        content=_content(question),
        difficulty=difficulty,
        function=f"Solution.{function}" if in_class else function,
        hidden_tests=tuple(calls),
        reference=APPS_PRELUDE + solution,
        gold_tests=tuple(call for call in calls if len(repr(call)) < MAX_GOLD_CHARS and not call.or_expected)[:2],
        prelude=APPS_PRELUDE,
    )


def _apps_tests(row: Row) -> tuple[str | None, list[tuple[Any, Any]]]:
    """The function that is called, if it is one, and pairs of what goes in and what must come out."""
    fields = _json_field(row, "input_output") or {}
    if not isinstance(fields, dict):
        raise UnsolvableProblem("its `input_output` is no object with `inputs` and `outputs`")
    inputs, outputs = _list(fields.get("inputs")), _list(fields.get("outputs"))
    if not inputs:
        raise UnsolvableProblem("it has no tests")
    if len(inputs) != len(outputs):
        raise UnsolvableProblem(f"it has {len(inputs)} inputs but {len(outputs)} outputs")
    return str(fields["fn_name"]) if fields.get("fn_name") else None, list(zip(inputs, outputs, strict=True))


def from_code_contests(row: Row) -> CodeProblem:
    """A row of https://github.com/google-deepmind/code_contests, as parquet or its JSON.

    `public_tests` are the examples of the description; `private_tests` and `generated_tests` may each be empty.

    Raises:
        UnsolvableProblem: it has no tests, no solution in Python 3, or its input is a file.
    """
    description = _statement(row["description"])
    if row.get("input_file") or row.get("output_file"):
        raise UnsolvableProblem("its programs read or write files instead of stdin and stdout")
    public, private, generated = (
        [StdioTest(_lines(given), _lines(wanted)) for given, wanted in _pairs(row.get(name), "input", "output")]
        for name in ("public_tests", "private_tests", "generated_tests")
    )
    tests = [*public, *private, *generated]
    if not tests:
        raise UnsolvableProblem("it has no tests")
    solutions = _pairs(row["solutions"], "language", "solution")
    solution = _first_python(text for language, text in solutions if language in PYTHON3)
    return _program(description, public, tests, solution, _difficulty_of(row))


def _program(
    statement: str, public: Sequence[StdioTest], tests: Sequence[StdioTest], solution: str, difficulty: int
) -> CodeProblem:
    return CodeProblem(
        statement=statement,
        content=_content(statement),
        difficulty=difficulty,
        function=None,
        public_tests=tuple(public),
        hidden_tests=tuple(tests),
        reference=solution,
        gold_tests=tuple(test for test in tests if len(test.input) + len(test.output) < MAX_GOLD_CHARS)[:2],
    )


def _statement(value: Any) -> str:
    statement = str(value).strip()
    if not statement:
        raise UnsolvableProblem("its statement is empty")
    return statement


def _content(statement: str) -> str:
    return " ".join(statement.lower().split())


def _how_to_begin(starter: str, function: str, in_class: bool) -> str:
    if starter:
        return f"Begin with:\n```python\n{starter}\n```"
    return f"Write a {'class Solution with the method' if in_class else 'function'} {function}."


def _apps_call(given: Any, wanted: Any) -> CallTest:
    """One call. Many of APPS's outputs are wrapped in a list, and no field says which, so both readings count."""
    args = given if isinstance(given, list) else _json_lines(given) if isinstance(given, str) else [given]
    if isinstance(wanted, str):
        wanted = _json_or_text(wanted)
    unwrapped = (_with_int_keys(wanted[0]),) if isinstance(wanted, list) and len(wanted) == 1 else ()
    return CallTest(tuple(map(_with_int_keys, args)), _with_int_keys(wanted), unwrapped)


def _with_int_keys(value: Any) -> Any:
    """A dict as it was before JSON made strings of its integer keys."""
    if isinstance(value, dict) and all(key.removeprefix("-").isdecimal() for key in value):
        return {int(key): item for key, item in value.items()}
    return value


def _json_lines(text: str) -> list[Any]:
    return [_json_or_text(line) for line in text.splitlines()]


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json_field(row: Row, name: str) -> Any:
    value = row.get(name)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError) as error:
        raise UnsolvableProblem(f"its `{name}` is not JSON ({error})") from error


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _lines(value: Any) -> str:
    """Text for a pipe; some inputs and outputs are lists of lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _pairs(columns: Any, first: str, second: str) -> Iterator[tuple[Any, Any]]:
    """Pairs of a table, which is a dict of columns in parquet and a list of objects in some copies."""
    if isinstance(columns, dict):
        yield from zip(_list(columns.get(first)), _list(columns.get(second)), strict=True)
    else:
        yield from ((entry[first], entry[second]) for entry in columns or ())


def _first_python(solutions: Iterable[Any]) -> str:
    """The first solution that is Python 3."""
    found = next((text for text in map(str, solutions) if text.strip() and is_python(text)), None)
    if found is None:
        raise UnsolvableProblem("it has no reference solution in Python 3")
    return found.rstrip() + "\n"


def _difficulty_of(row: Row) -> int:
    grade, rating = row.get("difficulty"), row.get("cf_rating")
    if isinstance(grade, int) and 1 <= grade <= 5:
        return grade
    return 1 + sum(rating >= step for step in RATING_STEPS) if isinstance(rating, int) and rating > 0 else 0


CODE_LAYOUTS = (
    Layout("HumanEval", ("prompt", "entry_point", "test"), from_human_eval),
    Layout("MBPP", ("code", "test_list"), from_mbpp),
    Layout("CodeContests", ("description", "solutions"), from_code_contests),
    Layout("APPS", ("question", "input_output"), from_apps),
)
