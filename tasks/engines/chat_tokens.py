"""How chats become tokens and back: the one place, so that what is trained is what was sampled."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.engines.base import Message
from tasks.engines.config import ModelConfig
from tasks.engines.model_files import resolve_model

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


class TemplateArgsError(ValueError):
    """The model's chat template cannot be told what `model.chat_template_args` says."""


def prompt_token_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], template_args: Mapping[str, Any]
) -> list[int]:
    """The chat as the policy sees it, up to where its reply begins. `template_args`: ModelConfig.chat_template_args."""
    return encode(tokenizer, prompt_text(tokenizer, messages, template_args))


def prompt_text(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], template_args: Mapping[str, Any]
) -> str:
    """The same as text, with the special tokens spelled out."""
    chat = [{"role": m["role"], "content": m["content"]} for m in messages]
    return str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False, **template_args))


def check_template_args(tokenizer: PreTrainedTokenizerBase, template_args: Mapping[str, Any]) -> None:
    """See that the chat template can be told this. A template ignores what it does not know, so a typo would change
    nothing, and nobody would see it.

    Raises:
        TemplateArgsError: it never mentions an argument, or refuses it.
    """
    if not template_args:
        return
    words = set(re.findall(r"[A-Za-z_]\w*", str(tokenizer.get_chat_template())))
    for name in template_args:
        if name not in words:
            near = difflib.get_close_matches(name, words, n=1)
            hint = f"did you mean {near[0]}?" if near else "leave it out"
            raise TemplateArgsError(
                f"model.chat_template_args.{name}: the model's chat template knows no {name}; {hint}"
            )
    try:
        prompt_token_ids(tokenizer, [{"role": "user", "content": "question"}], template_args)
    except Exception as error:  # a chat template raises what it likes
        found = ", ".join(f"{name}={value!r}" for name, value in template_args.items())
        why = " ".join(str(error).split())
        raise TemplateArgsError(
            f"model.chat_template_args: the model's chat template refuses {found}: {type(error).__name__}: {why}"
        ) from error


def check_template_of(model: ModelConfig) -> None:
    """`check_template_args` for a model that is not loaded; loads its tokenizer alone.

    Raises:
        TemplateArgsError: see there.
        ModelNotFoundError: there is no such model.
    """
    from transformers import AutoTokenizer  # it takes seconds to import

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(model), trust_remote_code=model.trust_remote_code)
    check_template_args(tokenizer, model.chat_template_args)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Text to ids, with nothing added: a template already holds its special tokens."""
    return encode_all(tokenizer, [text])[0]


def encode_all(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The same for many texts, which a tokenizer does faster than one after the other."""
    return list(tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"])


def decode_reply(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """A reply's text, without its end-of-turn token."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase, template_args: Mapping[str, Any]) -> int:
    """The token with which the chat template ends an assistant's message, else the tokenizer's end of sequence.

    Raises:
        ValueError: the tokenizer has neither.
    """
    reply = "reply"
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": reply}]
    rendered = str(tokenizer.apply_chat_template(chat, tokenize=False, **template_args))
    after = encode(tokenizer, rendered[rendered.rindex(reply) + len(reply) :])
    if after and after[0] in tokenizer.all_special_ids:
        return after[0]
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-turn and no end-of-sequence token, so no reply would ever end")
    return int(tokenizer.eos_token_id)


def stop_token_ids(
    tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None, template_args: Mapping[str, Any]
) -> frozenset[int]:
    """Every token that ends a reply."""
    stops = {end_of_turn_id(tokenizer, template_args)}
    for eos in (tokenizer.eos_token_id, generation.eos_token_id if generation is not None else None):
        if eos is not None:
            stops.update([eos] if isinstance(eos, int) else eos)
    return frozenset(stops)
