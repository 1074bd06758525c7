"""The layouts in which people keep chats, told apart by a row's own keys, as one list of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LAYOUTS = 'a list "messages", a list "conversations", or a "prompt" with a "completion"'
"""What a row may hold; the first of them that it has is read."""

LOST = ("tools", "functions")
"""What a model may be shown beside messages, and what nothing here can show it."""

COLUMNS = ("messages", "conversations", "system", "prompt", "completion", "metadata", *LOST)
"""Every key that is looked at; a file of columns need not be read further."""

_SPEAKERS = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
"""ShareGPT's names for roles; others are taken as they are."""


def find_messages(row: Mapping[str, object]) -> list[object] | None:
    """A row's messages, not checked yet; None: it has none of `LAYOUTS`.

    - `messages`: role and content.
    - `conversations` (ShareGPT): from and value, or role and content.
    - `prompt` and `completion`: each a text, which becomes a user's message or the reply, or a list of messages.

    `system` beside any of them comes first, unless the messages begin with it.
    """
    messages = _messages(row)
    if messages is None or row.get("system") in (None, ""):
        return messages
    system = {"role": "system", "content": row["system"]}
    return messages if messages[:1] == [system] else [system, *messages]


def _messages(row: Mapping[str, object]) -> list[object] | None:
    if isinstance(messages := row.get("messages"), list):
        return messages
    if isinstance(said := row.get("conversations"), list):
        return list(map(_from_sharegpt, said))
    prompt = _side(row.get("prompt"), "user")
    completion = _side(row.get("completion"), "assistant")
    return None if prompt is None or completion is None else [*prompt, *completion]


def _side(value: object, role: str) -> Sequence[object] | None:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    return value if isinstance(value, list) else None


def _from_sharegpt(message: object) -> object:
    if not isinstance(message, dict) or not {"from", "value"} <= message.keys():
        return message
    speaker = message["from"]
    rest = {key: value for key, value in message.items() if key not in ("from", "value")}
    role = _SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker
    return {"role": role, "content": message["value"], **rest}
