"""Records as token rows, exactly as the engine would have read and sampled them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tasks.dataset.records import Record
from tasks.engines.base import Message
from tasks.engines.chat_tokens import encode, encode_all, end_of_turn_id, prompt_text, prompt_token_ids
from tasks.rollout.episode import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_THINK_BEGINS, _THINK_ENDS = "<think>", "</think>"


class UntrainableRowError(ValueError):
    """A row that must not be trained on with this tokenizer and template. The message says why and what to do."""


@dataclass(frozen=True)
class TokenRow:
    """One record: prompt, reply and, unless the reply was cut off, the token that ends a turn."""

    input_ids: list[int]
    prompt_length: int
    """Tokens without a loss; the others follow them."""

    @property
    def prompt_ids(self) -> list[int]:
        return self.input_ids[: self.prompt_length]

    @property
    def reply_ids(self) -> list[int]:
        return self.input_ids[self.prompt_length :]


def tokenise(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, template_args: Mapping[str, Any]
) -> list[TokenRow | UntrainableRowError]:
    """Turn records into token rows, or into what is wrong with them. The loss is on the last message and on the token
    that ends it. `template_args` are those that the prompts were rendered with when they were played.

    The reply is put behind the prompt that the engine renders, not rendered by the template: templates rewrite earlier
    replies (Qwen3 removes their thoughts), and the model must learn the text that it would itself have sampled. So it
    takes no template with marks for what is trained.
    """
    prompts = [_rendered(record, tokenizer, template_args) for record in records]
    texts = [prompt if isinstance(prompt, str) else "" for prompt in prompts]
    prompt_ids = encode_all(tokenizer, texts)
    replies = encode_all(tokenizer, [record.messages[-1]["content"] for record in records])
    end = end_of_turn_id(tokenizer, template_args)
    return [
        prompt
        if isinstance(prompt, UntrainableRowError)
        else _checked(record, prompt, _row(asked, _ended(reply, _finish_reason(record), end)), tokenizer, end)
        for record, prompt, asked, reply in zip(records, prompts, prompt_ids, replies, strict=True)
    ]


def _row(prompt_ids: list[int], reply_ids: list[int]) -> TokenRow:
    return TokenRow(prompt_ids + reply_ids, len(prompt_ids))


def _rendered(
    record: Record, tokenizer: PreTrainedTokenizerBase, template_args: Mapping[str, Any]
) -> str | UntrainableRowError:
    try:
        return prompt_text(tokenizer, _as_chat(record.messages[:-1]), template_args)
    except Exception as error:  # a chat template raises what it likes
        why = " ".join(str(error).split())
        return UntrainableRowError(
            f"the model's chat template refuses the prompt ({type(error).__name__}: {why}); mend or delete the line"
        )


def _checked(
    record: Record, prompt: str, row: TokenRow, tokenizer: PreTrainedTokenizerBase, end: int
) -> TokenRow | UntrainableRowError:
    """The row, if the loss is on a reply that could have been sampled behind this prompt."""
    bos = tokenizer.bos_token_id
    if not row.reply_ids or row.reply_ids == [end]:
        return UntrainableRowError(
            "the tokenizer makes no token of the reply, so nothing would be trained; delete the line"
        )
    if bos is not None and row.prompt_ids[:2] == [bos, bos]:
        return UntrainableRowError(
            f"the prompt begins with {tokenizer.bos_token} twice; wanted it once; the chat template or the first "
            "message has one too many"
        )
    if end in row.reply_ids[: -1 if row.reply_ids[-1] == end else None]:
        return UntrainableRowError(
            f"the reply holds {tokenizer.decode([end])}, which ends a turn, so the model would learn to go on behind "
            "it; leave it out of the reply, to which it is added, or delete the line"
        )
    return _with_whole_thoughts(record, prompt, row, tokenizer)


def _with_whole_thoughts(
    record: Record, prompt: str, row: TokenRow, tokenizer: PreTrainedTokenizerBase
) -> TokenRow | UntrainableRowError:
    """The row, if thoughts begin and end in it once."""
    reply = record.messages[-1]["content"]
    begins, ends = reply.lstrip().startswith(_THINK_BEGINS), _THINK_ENDS in reply
    is_cut_off = _finish_reason(record) == "length"
    if _THINK_ENDS in reply and _THINK_ENDS not in str(tokenizer.decode(row.reply_ids, skip_special_tokens=False)):
        return UntrainableRowError(f"the tokenizer loses {_THINK_ENDS} in the reply; take another model")
    if prompt.rstrip().endswith((_THINK_BEGINS, _THINK_ENDS)) and begins:
        return UntrainableRowError(
            f"{_THINK_BEGINS} would stand there twice: the chat template opens the thoughts and so does the reply; "
            "leave it out of the reply"
        )
    if prompt.rstrip().endswith(_THINK_BEGINS) and not ends and not is_cut_off:
        return UntrainableRowError(
            f"the chat template opens {_THINK_BEGINS}, and the reply never closes it, so its thoughts are lost; "
            "put them into the reply, or pass --model.chat_template_args.enable_thinking false"
        )
    if begins and not ends and not is_cut_off:
        return UntrainableRowError(
            f"the reply opens {_THINK_BEGINS} and never closes it, so the model would learn to end amid its thoughts; "
            "mend or delete the line"
        )
    return row


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
    if _ended(encode(tokenizer, turn.reply), turn.finish_reason, end) != turn.reply_ids:
        return "reply"
    return None


def _prompt_ids(
    asked: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase, template_args: Mapping[str, Any]
) -> list[int]:
    return prompt_token_ids(tokenizer, _as_chat(asked), template_args)


def _as_chat(asked: Sequence[Mapping[str, str]]) -> list[Message]:
    return [{"role": m["role"], "content": m["content"]} for m in asked]


def _finish_reason(record: Record) -> str | None:
    return (record.metadata.model_extra or {}).get("finish_reason")


def _ended(reply_ids: list[int], finish_reason: str | None, end: int) -> list[int]:
    """A reply that was cut off did not end there, and the model must not learn that it does."""
    return reply_ids if finish_reason == "length" else [*reply_ids, end]
