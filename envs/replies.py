"""Reading what a model wrote: the fenced blocks of a reply."""

from __future__ import annotations

import re

_FENCE = re.compile(r"```([\w+-]*)[ \t]*\n(.*?)```", re.DOTALL)


def python_block(reply: str) -> str | None:
    """The last fenced block marked as Python, or not marked at all; None if there is none."""
    return _last_block(reply, {"python", "py", "python3", ""})


def json_block(reply: str) -> str | None:
    """The last fenced block marked as JSON, or not marked at all; None if there is none."""
    return _last_block(reply, {"json", ""})


def _last_block(reply: str, languages: set[str]) -> str | None:
    blocks = [text for language, text in _FENCE.findall(reply) if language.lower() in languages]
    return blocks[-1].rstrip("\n") + "\n" if blocks else None
