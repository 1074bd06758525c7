"""Reading what a model wrote: the fenced blocks of a reply, and text that a file can hold."""

from __future__ import annotations

import re

_FENCE = re.compile(r"```([\w+-]*)[ \t]*\r?\n(.*?)```", re.DOTALL)


def python_block(reply: str) -> str | None:
    """The last fenced block marked as Python, else the last one not marked at all; None if there is none."""
    return _last_block(reply, {"python", "py", "python3"})


def json_block(reply: str) -> str | None:
    """The last fenced block marked as JSON, else the last one not marked at all; None if there is none."""
    return _last_block(reply, {"json"})


def _last_block(reply: str, languages: set[str]) -> str | None:
    blocks = [(language.lower(), text) for language, text in _FENCE.findall(reply)]
    marked = [text for language, text in blocks if language in languages]
    # What a program prints is often shown below it, in a block without a mark.
    found = marked or [text for language, text in blocks if not language]
    return found[-1].rstrip("\r\n") + "\n" if found else None


def encodable(text: str) -> str:
    """The text without half surrogate pairs, which JSON can carry and no prompt or file can."""
    return text.encode("utf-8", "replace").decode()
