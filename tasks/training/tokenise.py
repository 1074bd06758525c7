"""Records as token rows, exactly as the engine would have read and sampled them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.dataset.records import Record
from tasks.engines.base import Message
from tasks.engines.chat_tokens import encode, end_of_turn_id, prompt_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that the loss leaves out."""


class NothingToTrainError(ValueError):
    """No row is left to train on."""


@dataclass(frozen=True)
class TokenRow:
    """One record: prompt, reply, end of turn."""

    input_ids: list[int]
    labels: list[int]
    """`input_ids`, with `IGNORED` for the prompt."""


@dataclass(frozen=True)
class TokenRows:
    """What is trained on, and what was too long for it."""

    rows: list[TokenRow]
    dropped_overlong: int

    @property
    def trained_tokens(self) -> int:
        """Tokens with a loss, each counted once."""
        return sum(label != IGNORED for row in self.rows for label in row.labels)


def tokenise(records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenRows:
    """Turn records into token rows. The loss is on the last message and on the token that ends it.

    The reply is put behind the prompt that the engine renders, not rendered by the template: templates rewrite earlier
    replies (Qwen3 removes their thoughts), and the model must learn the text that it would itself have sampled.

    Raises:
        NothingToTrainError: there is no record, or every one has more than `max_length` tokens.
    """
    end = end_of_turn_id(tokenizer)
    rows = [_row(record, tokenizer, end) for record in records]
    fitting = [row for row in rows if len(row.input_ids) <= max_length]
    if not fitting:
        shortest = min((len(row.input_ids) for row in rows), default=0)
        why = f"all {len(rows)} rows are longer than train.max_length={max_length}; the shortest has {shortest} tokens"
        raise NothingToTrainError(f"nothing to train on: {why if rows else 'the data has no rows'}")
    return TokenRows(fitting, len(rows) - len(fitting))


def _row(record: Record, tokenizer: PreTrainedTokenizerBase, end: int) -> TokenRow:
    *asked, reply = record.messages
    prompt: list[Message] = [{"role": m["role"], "content": m["content"]} for m in asked]
    prompt_ids = prompt_token_ids(tokenizer, prompt)
    # A reply that was cut off did not end there, and the model must not learn that it does.
    cut_off = getattr(record.metadata, "finish_reason", None) == "length"
    reply_ids = encode(tokenizer, reply["content"]) + ([] if cut_off else [end])
    return TokenRow(prompt_ids + reply_ids, [IGNORED] * len(prompt_ids) + reply_ids)
