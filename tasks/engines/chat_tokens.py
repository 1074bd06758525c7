"""How chats become tokens and back: the one place, so that what is trained is what was sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.engines.base import Message

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The chat as the policy sees it, up to where its reply begins."""
    chat = [{"role": m["role"], "content": m["content"]} for m in messages]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return encode(tokenizer, str(text))


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Text to ids, with nothing added: a template already holds its special tokens."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def decode_reply(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """A reply's text, without its end-of-turn token."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token with which the chat template ends an assistant's message, else the tokenizer's end of sequence.

    Raises:
        ValueError: the tokenizer has neither.
    """
    reply = "reply"
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": reply}]
    rendered = str(tokenizer.apply_chat_template(chat, tokenize=False))
    after = encode(tokenizer, rendered[rendered.rindex(reply) + len(reply) :])
    if after and after[0] in tokenizer.all_special_ids:
        return after[0]
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-turn and no end-of-sequence token, so no reply would ever end")
    return int(tokenizer.eos_token_id)


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None) -> frozenset[int]:
    """Every token that ends a reply."""
    stops = {end_of_turn_id(tokenizer)}
    for eos in (tokenizer.eos_token_id, generation.eos_token_id if generation is not None else None):
        if eos is not None:
            stops.update([eos] if isinstance(eos, int) else eos)
    return frozenset(stops)
