"""A row of a data file that a user may have written: a prompt and a reply, or refused in words."""

from __future__ import annotations

import json
from typing import Any

from tasks.dataset.layouts import LAYOUTS, LOST, find_messages

ROLES = ("system", "user", "assistant", "tool")


class DataFileError(ValueError):
    """A data file is missing or cannot be trained on. The message is one line that says where, what and what to do."""


def check_row(row: object, where: str) -> dict[str, Any]:
    """The row as messages with role and content alone, whichever layout it has; see `layouts.py`.

    Args:
        where: stands in front of every error, as `file:line`.

    Raises:
        DataFileError: it has no layout that is known, holds what would be lost, or its messages are not a prompt and an
            assistant's reply.
    """
    if not isinstance(row, dict) or (found := find_messages(row)) is None:
        found_instead = (
            f"an object with {', '.join(map(repr, row)) or 'nothing'}" if isinstance(row, dict) else kind(row)
        )
        raise DataFileError(
            f"{where}: found {found_instead}; wanted an object with {LAYOUTS}; mend or delete the line."
        )
    if lost := [key for key in LOST if row.get(key) not in (None, "", "[]", [])]:
        raise DataFileError(
            f"{where}: the row also has {', '.join(map(repr, lost))}, which would be lost; wanted all that the model "
            "should see in messages; put it into one, or leave the key out."
        )
    messages = [_parse_message(m, i, where) for i, m in enumerate(found)]
    _check_order([m["role"] for m in messages], where)
    if not messages[-1]["content"].strip():
        raise DataFileError(f"{where}: the assistant's reply is empty; wanted text to train on; delete the line.")
    return {**row, "messages": messages}


def parse_json(line: bytes, where: str) -> Any:
    """What is on a line of a JSONL file.

    Raises:
        DataFileError: it is not JSON, or not text.
    """
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        found = f"a byte that is not UTF-8 at column {error.start + 1}"
    except json.JSONDecodeError as error:
        found = f"{error.msg} at column {error.colno}"
    except RecursionError:
        found = "it is nested too deeply"
    raise DataFileError(f"{where}: broken JSON ({found}); wanted one JSON object a line; mend or delete the line.")


def _parse_message(message: object, index: int, where: str) -> dict[str, str]:
    here = f"{where}: message {index}"
    if not isinstance(message, dict):
        raise DataFileError(f"{here} is {kind(message)}; wanted an object with role and content; mend the line.")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise DataFileError(f"{here} has role {role!r}; wanted one of {', '.join(ROLES)}; mend the line.")
    if not isinstance(content, str):
        raise DataFileError(f"{here} has {kind(content)} as content; wanted text; mend the line.")
    if not _is_unicode(content):
        raise DataFileError(f"{here} holds half a character (a lone surrogate); wanted text; mend the line.")
    others = [key for key, value in message.items() if key not in ("role", "content") and value is not None]
    if others:
        raise DataFileError(
            f"{here} also has {', '.join(map(repr, others))}, which would be lost; wanted role and content only; "
            "put what the model should see or say into content."
        )
    return {"role": role, "content": content}


def _check_order(roles: list[str], where: str) -> None:
    if not roles:
        raise DataFileError(f"{where}: messages is empty; wanted a prompt and an assistant's reply; delete the line.")
    if "assistant" not in roles:
        raise DataFileError(
            f"{where}: no assistant message (roles: {', '.join(roles)}); wanted the reply to train on as the last one; "
            "add it or delete the line."
        )
    if roles[-1] != "assistant":
        raise DataFileError(
            f"{where}: the last message has role {roles[-1]!r}; wanted 'assistant', whose reply is trained on; "
            "cut what follows the reply."
        )
    if "system" in roles[1:]:
        raise DataFileError(
            f"{where}: message {roles.index('system', 1)} has role 'system'; wanted it first or nowhere."
        )
    if roles[0] == "assistant" or "user" not in roles:
        raise DataFileError(
            f"{where}: no user's message before the reply (roles: {', '.join(roles)}); wanted a prompt; "
            "add it or delete the line."
        )


def _is_unicode(text: str) -> bool:
    """JSON can spell what no text may hold, and no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def kind(value: object) -> str:
    """What a value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
