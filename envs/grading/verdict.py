"""The verdict on one test, and how what came out is shown in it."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any, Literal

from envs.sandbox.base import RunStatus

MAX_SHOWN_CHARS = 500


@dataclass(frozen=True)
class Verdict:
    """What became of code that was put to one test. Only `accepted` is a success."""

    status: Literal["accepted", "wrong_answer"] | RunStatus
    got: str = ""
    """What came out, shortened; nothing in it comes from the judge's side."""
    error: str = ""
    """For `runtime_error`: the last line of the traceback."""


def show_text(text: str) -> str:
    """Text of at most `MAX_SHOWN_CHARS` characters, the end cut."""
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."


def show_value(value: Any) -> str:
    """How Python writes a value, shortened in the same way; deep or long parts are left out first."""
    try:
        return show_text(_SHORT.repr(value))
    except ValueError:  # Python refuses to write integers of more than 4,300 digits
        return f"{type(value).__name__} with an integer of more than 4300 digits"


def _short_repr() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxlevel = 10
    short.maxlist = short.maxtuple = short.maxset = short.maxfrozenset = short.maxdict = MAX_SHOWN_CHARS // 3
    short.maxstring = short.maxlong = short.maxother = MAX_SHOWN_CHARS
    return short


_SHORT = _short_repr()
