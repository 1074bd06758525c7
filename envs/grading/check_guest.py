"""The judge's own program for a `CheckProgram`: its text is put in front of a call to `record` or `replay` and run in
the sandbox, without any of the model's code. So it imports nothing of the project.
"""

from __future__ import annotations

import copy
import random
from typing import Any

SEED = 0
"""Checks that draw their inputs draw the same ones when they are replayed."""


def load(name: str, source: str) -> dict[str, Any]:
    """The names that a source defines."""
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(source, f"<{name}>", "exec", dont_inherit=True), namespace)
    return namespace


def record(wire_source: str, check_source: str, entry_point: str) -> None:
    """Check the reference solution, and print the arguments of every call that was made on the way."""
    dumps = load("wire", wire_source)["dumps"]
    namespace = load("check", check_source)
    reference = namespace[entry_point]
    calls: list[str] = []

    def candidate(*args: Any) -> Any:
        calls.append(dumps(args))
        state = random.getstate()
        try:
            return reference(*copy.deepcopy(args))
        finally:
            random.setstate(state)  # the check draws on as if the solution had drawn nothing

    random.seed(SEED)
    namespace["check"](candidate)
    print("\n" + f"[{', '.join(calls)}]")


def replay(wire_source: str, check_source: str, recorded: str, answered: str, token: str) -> None:
    """Check a solution that gave `answered` for the `recorded` calls, and print the token if it is right."""
    wire = load("wire", wire_source)
    namespace = load("check", check_source)
    calls = wire["loads"](recorded)
    answers = wire["loads"](answered)
    asked: list[Any] = []

    def candidate(*args: Any) -> Any:
        asked.append(args)
        return answers[len(asked) - 1]

    random.seed(SEED)
    namespace["check"](candidate)
    if wire["dumps"](asked) == wire["dumps"](calls):
        print("\n" + token)
