"""OpenAI's chat completions in both directions: a `ChatRequest` as its body, its answer as a `Completion`.

Pure functions; `openai_http.py` does the talking.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tasks.engines.base import ChatRequest, Completion, FinishReason, Message
from tasks.engines.openai_http.endpoint import PassingFault, Refused, error_message

logger = logging.getLogger(__name__)

CHARS_PER_TOKEN = 4
"""By which tokens are counted where a server does not say how many there were."""
SERVERS_WITH_OWN_DEFAULTS = {"vllm", "sglang"}
"""What these are not told they take from the model's generation_config.json: for Qwen3, a top_k of 20."""

_BROKEN_OFF = {"abort", "error", "insufficient_system_resource", "load", "unload"}
"""Reasons with which vLLM, SGLang, OpenRouter, DeepSeek and Ollama own up to a fault of theirs."""
_TOO_LONG = re.compile(
    r"maximum context length|model's context length|context (size|window)|prompt is too long|input is too long", re.I
)


@dataclass(frozen=True)
class ListedModel:
    """A model that a server offers."""

    name: str
    owner: str
    is_adapter: bool
    """vLLM lists the adapters that it serves beside their base, and names the base as their parent."""


def listed_models(answer: Any) -> list[ListedModel]:
    """What GET /models answers. Raises PassingFault if it is no such list."""
    rows = answer.get("data") if isinstance(answer, dict) else None
    if rows is None and isinstance(answer, dict) and answer.get("object") == "list":
        return []  # Ollama without any model
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows):
        raise PassingFault(f"something that is no list of models: {str(answer)[:100]}")
    return [ListedModel(row["id"], str(row.get("owned_by")), row.get("parent") is not None) for row in rows]


def request_body(
    request: ChatRequest,
    model: str,
    limit_name: str,
    *,
    spell_out: bool,
    token_ids: bool,
    template_args: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a request.

    top_k and min_p are not OpenAI's, which refuses them, but vLLM's, SGLang's, llama.cpp's and Ollama's: they are sent
    where they are set or, with `spell_out`, always.

    Args:
        limit_name: what the server calls the most tokens of a reply, `max_tokens` or `max_completion_tokens`.
        spell_out: name also what is not wanted, because the server has defaults of its own.
        token_ids: have the server tell the ids of prompt and reply, as vLLM does.
        template_args: what the server's chat template is told besides the messages.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": list(request.messages),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        limit_name: sampling.max_tokens,
        "seed": request.seed,
    }
    if spell_out:
        body |= {"top_k": sampling.top_k or -1, "min_p": sampling.min_p, "repetition_penalty": 1.0}
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.min_p:
        body["min_p"] = sampling.min_p
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if token_ids:
        body["return_token_ids"] = True
    if template_args:
        body["chat_template_kwargs"] = dict(template_args)
    return body


def is_too_long(refusal: Refused) -> bool:
    """Whether a request was refused because it and the reply do not fit into the model's context."""
    kinds = {str(refusal.error.get("code")), str(refusal.error.get("type"))}
    if kinds & {"context_length_exceeded", "exceed_context_size_error"}:
        return True
    return refusal.status in (400, 413, 422) and _TOO_LONG.search(refusal.said) is not None


def wants_other_limit_name(refusal: Refused) -> bool:
    """Whether max_tokens was refused by a model that takes max_completion_tokens, as OpenAI's newer ones do."""
    return refusal.status == 400 and "use 'max_completion_tokens' instead" in refusal.said.lower()


def no_room(request: ChatRequest) -> Completion:
    """The reply to a prompt that leaves no room for one: empty and cut off, as the in-process engine has it."""
    return Completion("", "length", _prompt_estimate(request.messages), 0)


def completion_of(answer: Any, messages: Sequence[Message]) -> Completion:
    """The reply in an answer. Tokens that the server does not count are estimated at four characters each.

    A missing content is an empty text, which the data file will not hold. Its reasoning stays apart from it.

    Raises:
        PassingFault: it holds no reply, or one that the server broke off for reasons of its own.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise PassingFault(f"200 without a reply: {error_message(answer) or str(answer)}"[:300])
    if str(choice.get("finish_reason")) in _BROKEN_OFF:
        raise PassingFault(f"a reply that the server broke off, with finish_reason {choice['finish_reason']!r}")
    text = _text(message.get("content"))
    reasoning = next((r for key in ("reasoning_content", "reasoning") if isinstance(r := message.get(key), str)), None)
    usage = answer.get("usage")
    return Completion(
        text=text,
        finish_reason=_finish_reason(choice.get("finish_reason")),
        prompt_tokens=_count(usage, "prompt_tokens", _prompt_estimate(messages)),
        completion_tokens=_count(usage, "completion_tokens", _estimate(text + (reasoning or ""))),
        reasoning=reasoning or None,
        prompt_ids=_token_ids(answer.get("prompt_token_ids")),
        reply_ids=_token_ids(choice.get("token_ids")),
    )


def prompt_logprobs(answer: Any, ids: Sequence[int]) -> list[float]:
    """Log-probabilities of a prompt's tokens but the first, in vLLM's answer. Raises PassingFault if it has none."""
    try:
        rows = answer["choices"][0]["prompt_logprobs"]
        return [float(row[str(token)]["logprob"]) for row, token in zip(rows[1:], ids[1:], strict=True)]
    except (KeyError, TypeError, IndexError, ValueError):
        raise PassingFault(f"an answer without prompt_logprobs: {str(answer)[:100]}") from None


def _text(content: Any) -> str:
    """A content: a text, nothing, or a list of parts, of which the texts count."""
    if content is None:
        return ""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str):
        raise PassingFault(f"a reply whose content is {type(content).__name__}; wanted a text")
    return content


def _token_ids(given: Any) -> list[int] | None:
    """Token ids, where a server tells them."""
    return given if isinstance(given, list) and all(type(token) is int for token in given) else None


def _finish_reason(reason: Any) -> FinishReason:
    """`stop` only where the server says so. A filter, a tool call, no reason or an unknown one count as cut off:
    what is there may not be all that the model had to say, so it must not be trained on unless the user asks for it.
    """
    if reason in ("stop", "length"):
        return reason  # type: ignore[no-any-return]
    _warn_of(str(reason))
    return "length"


@lru_cache(maxsize=32)
def _warn_of(reason: str) -> None:
    """Once for each reason."""
    logger.warning("the server ended a reply with finish_reason %r; such replies count as cut off", reason[:50])


def _count(usage: Any, name: str, otherwise: int) -> int:
    count = usage.get(name) if isinstance(usage, Mapping) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else otherwise


def _prompt_estimate(messages: Sequence[Message]) -> int:
    return sum(_estimate(message["content"]) for message in messages)


def _estimate(text: str) -> int:
    return -(-len(text) // CHARS_PER_TOKEN)
