"""Problems in MBPP's layout, whose tests are assert statements.

    {"task_id": 2, "text": "Write a function to ..", "code": "def f(..): ..", "test_list": ["assert f(1) == 2", ..],
     "test_setup_code": "", "challenge_test_list": []}              the sanitized half has `prompt` and `test_imports`

An assert holds the expected value, so it never runs beside the model's code: one of the form `assert f(1, 2) == 3` is
read into a call test, and where any has another form they all become one `CheckProgram`, as HumanEval's do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from envs.grading.code_tests import CallTest, CheckProgram, Test
from envs.problems.files import Row, UnsolvableProblem
from envs.problems.kinds import CodeProblem
from envs.python_source import parse_python


def from_mbpp(row: Row) -> CodeProblem:
    """A row of https://github.com/google-research/google-research/tree/master/mbpp: all of its tests decide.

    The statement shows the first of them, as the authors' own prompt does: it alone tells the function's name.

    Raises:
        UnsolvableProblem: it has no code or no tests, or no test calls what the code defines.
        SyntaxError: the code or a test is no Python.
    """
    text = str(row["text"] if row.get("text") is not None else row["prompt"]).strip()
    code = str(row["code"]).replace("\r\n", "\n")
    asserts = [str(line).strip() for name in ("test_list", "challenge_test_list") for line in row.get(name) or ()]
    if not code.strip():
        raise UnsolvableProblem("it has no reference solution")
    if not asserts:
        raise UnsolvableProblem("it has no tests")
    function = _tested_function(code, asserts)
    prelude = "".join(
        f"{part}\n" for part in (*(row.get("test_imports") or ()), row.get("test_setup_code") or "") if part
    )
    calls = [_as_call(line, function) for line in asserts]
    tests: list[Test] = [call for call in calls if call is not None]
    if len(tests) < len(calls):
        tests = [_as_check(function, prelude, code, asserts)]
    public = [test for test in tests[:1] if isinstance(test, CallTest)]
    return CodeProblem(
        statement=f"{text}\nYour code should pass this test:\n{asserts[0]}",
        content=" ".join(text.lower().split()),
        function=function,
        public_tests=tuple(public),
        hidden_tests=tuple(tests),
        reference=prelude + code,
        prelude=prelude,
    )


def _tested_function(code: str, asserts: Sequence[str]) -> str:
    """The function under test: the first one that a test calls and the code defines."""
    defined = {node.name for node in parse_python(code).body if isinstance(node, ast.FunctionDef)}
    called = (name for line in asserts for name in _called_names(line))
    found = next((name for name in called if name in defined), None)
    if found is None:
        raise UnsolvableProblem("none of its tests calls a function that its code defines")
    return found


def _called_names(line: str) -> Iterator[str]:
    for node in ast.walk(parse_python(line)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def _as_call(line: str, function: str) -> CallTest | None:
    """`assert function(literals) == literal` as data; None if it has another form."""
    match parse_python(line).body:
        case [
            ast.Assert(
                test=ast.Compare(
                    left=ast.Call(func=ast.Name(id=name), args=args, keywords=[]), ops=[ast.Eq()], comparators=[wanted]
                )
            )
        ] if name == function:
            try:
                return CallTest(tuple(map(ast.literal_eval, args)), ast.literal_eval(wanted))
            except (ValueError, TypeError):  # a name or a computation, or a set of lists
                return None
    return None


def _as_check(function: str, prelude: str, code: str, asserts: Sequence[str]) -> CheckProgram:
    """All asserts in one `check(candidate)`, in which the function's name stands for the candidate."""
    body = ast.Module(
        [parse_python(f"{function} = candidate").body[0], *(s for line in asserts for s in parse_python(line).body)], []
    )
    check = "def check(candidate):\n" + "".join(f"    {line}\n" for line in ast.unparse(body).splitlines())
    return CheckProgram(entry_point=function, prelude=prelude, check=check, reference=code)
