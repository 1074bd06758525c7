"""Records as token rows, exactly as the engine would have read and sampled them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tasks.dataset.records import Record
from tasks.engines.base import Message
from tasks.engines.chat_tokens import encode, end_of_turn_id, prompt_token_ids
from tasks.rollout.episode import Turn

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


def tokenise(
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    template_args: Mapping[str, Any],
) -> TokenRows:
    """Turn records into token rows. The loss is on the last message and on the token that ends it. `template_args` are
    those that the prompts were rendered with when they were played.

    The reply is put behind the prompt that the engine renders, not rendered by the template: templates rewrite earlier
    replies (Qwen3 removes their thoughts), and the model must learn the text that it would itself have sampled.

    Raises:
        NothingToTrainError: there is no record, or every one has more than `max_length` tokens.
    """
    end = end_of_turn_id(tokenizer, template_args)
    rows = [_row(record, tokenizer, end, template_args) for record in records]
    fitting = [row for row in rows if len(row.input_ids) <= max_length]
    if not fitting:
        shortest = min((len(row.input_ids) for row in rows), default=0)
        why = f"all {len(rows)} rows are longer than train.max_length={max_length}; the shortest has {shortest} tokens"
        raise NothingToTrainError(f"nothing to train on: {why if rows else 'the data has no rows'}")
    return TokenRows(fitting, len(rows) - len(fitting))


def differs_from_sampled(
    turn: Turn, tokenizer: PreTrainedTokenizerBase, template_args: Mapping[str, Any]
) -> Literal["prompt", "reply"] | None:
    """Where the tokens that would be trained differ from those that the engine read and sampled; None: nowhere.

    A prompt differs only where another tokenizer, template or template argument was at work. A reply may differ by
    chance: a model can spell a text with other tokens than its tokenizer would. It also does where what ended it is
    not the end of turn: a stop text, or another end token of the model.

    Raises:
        ValueError: the engine did not tell the turn's token ids.
    """
    if turn.prompt_ids is None or turn.reply_ids is None:
        raise ValueError(
            f"turn {turn.turn_idx} of {turn.agent_name} has no token ids; wanted one from an engine that tells them "
            "(in_process, vLLM)"
        )
    if _prompt_ids(turn.messages, tokenizer, template_args) != turn.prompt_ids:
        return "prompt"
    end = end_of_turn_id(tokenizer, template_args)
    if _reply_ids(turn.reply, turn.finish_reason, tokenizer, end) != turn.reply_ids:
        return "reply"
    return None


def _row(record: Record, tokenizer: PreTrainedTokenizerBase, end: int, template_args: Mapping[str, Any]) -> TokenRow:
    *asked, reply = record.messages
    prompt_ids = _prompt_ids(asked, tokenizer, template_args)
    finish_reason = getattr(record.metadata, "finish_reason", None)
    reply_ids = _reply_ids(reply["content"], finish_reason, tokenizer, end)
    return TokenRow(prompt_ids + reply_ids, [IGNORED] * len(prompt_ids) + reply_ids)


def _prompt_ids(
    asked: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase, template_args: Mapping[str, Any]
) -> list[int]:
    prompt: list[Message] = [{"role": m["role"], "content": m["content"]} for m in asked]
    return prompt_token_ids(tokenizer, prompt, template_args)


def _reply_ids(reply: str, finish_reason: str | None, tokenizer: PreTrainedTokenizerBase, end: int) -> list[int]:
    """A reply that was cut off did not end there, and the model must not learn that it does."""
    return encode(tokenizer, reply) + ([] if finish_reason == "length" else [end])
