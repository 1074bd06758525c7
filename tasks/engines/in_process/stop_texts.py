"""Texts that end a reply: noticed while its tokens come, and cut off with whatever stands behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

_SLACK_TOKENS = 8
"""Tokens beyond those that a text can have at most, for the ones that show as nothing or as a part of a character."""


def ends_with_stop(stop: Sequence[str], decode: Callable[[Sequence[int]], str]) -> Callable[[Sequence[int]], bool]:
    """A function that tells whether one of `stop` came with the last token of a reply.

    It decodes the last tokens alone, so a long reply costs no more than a short one. A text of n bytes has at most n
    tokens.
    """
    num_tokens = max(len(text.encode()) for text in stop) + _SLACK_TOKENS
    return partial(_is_in_tail, stop, num_tokens, decode)


def _is_in_tail(
    stop: Sequence[str], num_tokens: int, decode: Callable[[Sequence[int]], str], ids: Sequence[int]
) -> bool:
    tail = decode(ids[-num_tokens:])
    return any(text in tail for text in stop)


def before_stop(text: str, stop: Sequence[str]) -> str | None:
    """What stands before the first of `stop` in a text, or None if there is none of them in it."""
    found = [place for each in stop if (place := text.find(each)) >= 0]
    return text[: min(found)] if found else None
