"""Rows that are too long: what may be left out of a prompt so that nothing wrong is learned."""

from __future__ import annotations

from tasks.dataset.records import Record


def shortened(record: Record) -> Record | None:
    """The row without the oldest messages of its prompt, up to the next of a user; None: there is nothing to leave out.

    Only whole messages go: a prompt that begins in the middle of one is none that a model is ever sent, and a reply
    that is cut teaches to stop too early or not at all. The system's message and the last user's stay.
    """
    messages = record.messages
    first = 1 if messages[0]["role"] == "system" else 0
    later = next((i for i in range(first + 1, len(messages) - 1) if messages[i]["role"] == "user"), None)
    if later is None:
        return None
    return record.model_copy(update={"messages": [*messages[:first], *messages[later:]]})
