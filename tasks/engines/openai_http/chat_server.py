"""One server that speaks OpenAI's chat API: what it offers, its replies, and what vLLM's can do besides."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tasks.engines.base import ChatRequest, Completion, EngineError
from tasks.engines.openai_http.chat_api import (
    SERVERS_WITH_OWN_DEFAULTS,
    ListedModel,
    completion_of,
    is_too_long,
    listed_models,
    no_room,
    prompt_logprobs,
    request_body,
    wants_other_limit_name,
)
from tasks.engines.openai_http.endpoint import Deadline, Gate, HttpEndpoint, OutOfTime, PassingFault, Refused

T = TypeVar("T")

CHAT = "/chat/completions"
LOAD_ADAPTER, UNLOAD_ADAPTER = "/load_lora_adapter", "/unload_lora_adapter"
VLLM = "vllm"
"""How vLLM signs its list of models."""

_LOOK_S = 30.0
_LOOK_ATTEMPTS = 3
"""A first look at a server gives up soon: what is wrong then is mostly its address."""
_LOAD_S = 300.0
"""Reading an adapter from a slow disk onto every GPU."""
_ATTEMPTS_WITHIN_LIMIT = 2
"""One attempt may take this fraction (1/n) of a request's time, so that one stall never uses it up."""
_HEAD_START = 0.02
"""The rollout loop has the same limit as a request has here; this much earlier, what went wrong is still told."""
_LOOK_BESIDE_S = 10.0
_METRIC = re.compile(
    r"^vllm:(num_requests_running|num_requests_waiting|(?:kv|gpu)_cache_usage_perc)(?:\{[^}]*\})? (\S+)$", re.M
)


@dataclass(frozen=True)
class Load:
    """How many requests a server works at, and how many wait in it."""

    running: int
    waiting: int
    cache_share: float
    """How much of the room for keys and values is in use, from 0 to 1; of several engines, in the fullest one."""


class ChatServer:
    """One server, between `open` and `close`."""

    def __init__(
        self,
        endpoint: HttpEndpoint,
        timeout_s: float,
        key_hint: str,
        template_args: Mapping[str, Any],
        gate: Gate | None = None,
    ) -> None:
        """
        Args:
            timeout_s: the most seconds for one reply, further attempts included.
            key_hint: what to say of the key when the server does not take it.
            template_args: what its chat template is told besides the messages.
            gate: what requests for replies have to pass; nothing else does.
        """
        self.num_asked = 0
        """Requests that it is answering now."""
        self.is_vllm = False
        self._endpoint = endpoint
        self._limit_s = timeout_s
        self._timeout_s = timeout_s * (1 - _HEAD_START)
        self._key_hint = key_hint
        self._template_args = template_args
        self._gate = gate
        self._limit_name = "max_tokens"
        self._spell_out = False

    @property
    def is_up(self) -> bool:
        """Whether it is not known to be down."""
        return self._gate is None or self._gate.is_open

    @property
    def url(self) -> str:
        """Its address now."""
        return self._endpoint.url

    async def open(self) -> None:
        """Make the pool of connections."""
        await self._endpoint.open()

    async def close(self) -> None:
        """Hang up. Safe to call twice, and before `open`."""
        await self._endpoint.close()

    async def look(self) -> list[ListedModel]:
        """What the server lists. One that has no list must at least have the place where chats are answered.

        Raises:
            EngineError: it cannot be reached.
            ValueError: address or key are not what it takes.
        """
        try:
            listed = await self._ask_soon("GET", "/models", listed_models)
        except Refused as refusal:
            if refusal.status not in (404, 405, 501):
                raise ValueError(str(self._explained(refusal))) from None
        else:
            self.is_vllm = any(model.owner == VLLM for model in listed)
            self._spell_out = any(model.owner in SERVERS_WITH_OWN_DEFAULTS for model in listed)
            return listed
        try:
            await self._ask_soon("POST", CHAT, bool, {})
        except OutOfTime:
            pass  # it answers, though it cannot cope with an empty request
        except Refused as refusal:
            if refusal.status in (401, 403, 404, 405) or refusal.status < 400:
                raise ValueError(str(self._explained(refusal))) from None
        return []

    async def chat(self, request: ChatRequest, model: str) -> Completion:
        """The reply of a model that the server has.

        Raises:
            EngineError: there is none, in the time that there is or at all.
        """
        deadline = Deadline(self._timeout_s)
        limit_name = self._limit_name
        body = request_body(
            request,
            model,
            limit_name,
            spell_out=self._spell_out,
            token_ids=self.is_vllm,
            template_args=self._template_args,
        )
        self.num_asked += 1
        try:
            while True:
                try:
                    return await self._reply(body, request, deadline)
                except Refused as refusal:
                    if is_too_long(refusal):
                        # Servers that are given no limit take what room there is, which is less than the limit was.
                        if body.pop(limit_name, None) is None:
                            return no_room(request)
                    elif wants_other_limit_name(refusal) and limit_name in body:
                        body["max_completion_tokens"] = body.pop(limit_name)
                        self._limit_name = limit_name = "max_completion_tokens"
                    else:
                        raise self._explained(refusal) from None
        finally:
            self.num_asked -= 1

    async def takes_adapters(self) -> bool:
        """Whether adapters can be loaded while it runs: vLLM's server has a place for that where it is told to."""
        try:
            await self._ask_soon("POST", LOAD_ADAPTER, bool, {}, decode=bytes)
        except Refused as refusal:
            return refusal.status in (400, 422)  # it misses the name
        return True

    async def load_adapter(self, name: str, path: str) -> None:
        """Have the server load an adapter, under a name that nobody else gives, from a path that it can read.

        Raises:
            ValueError: it does not want it.
        """
        body = {"lora_name": name, "lora_path": path}
        try:
            await self._ask_within(_LOAD_S, "POST", LOAD_ADAPTER, bool, body, decode=bytes)
        except Refused as refusal:
            if "already been loaded" not in refusal.said:  # by an attempt whose answer was lost: the name is our own
                raise ValueError(f"the adapter in {path} cannot be loaded: {refusal}") from None

    async def unload_adapter(self, name: str) -> None:
        """Have the server forget an adapter.

        Raises:
            EngineError: it does not.
        """
        await self._ask_soon("POST", UNLOAD_ADAPTER, bool, {"lora_name": name}, decode=bytes)

    async def logprobs(self, model: str, ids: Sequence[int]) -> list[float]:
        """Log-probability of each token but the first, given those before it. vLLM's servers alone tell that.

        Raises:
            EngineError: it cannot be had.
        """
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        return await self._ask_within(self._timeout_s, "POST", "/completions", lambda a: prompt_logprobs(a, ids), body)

    async def load(self) -> Load:
        """How busy a vLLM server is.

        Raises:
            EngineError: it does not say.
        """
        return await self._look_beside("metrics", _load_of)

    async def is_well(self) -> bool:
        """Whether a vLLM server says that it is well: it does not where its engine is dead."""
        try:
            return await self._look_beside("health", lambda _: True)
        except EngineError:
            return False

    async def _look_beside(self, page: str, read: Callable[[str], T]) -> T:
        """What a page of vLLM's server holds that is no part of the API."""
        path = f"/../{page}" if self.url.endswith("/v1") else f"/{page}"
        return await self._ask_within(_LOOK_BESIDE_S, "GET", path, read, max_attempts=1, decode=bytes.decode)

    async def _reply(self, body: dict[str, Any], request: ChatRequest, deadline: Deadline) -> Completion:
        try:
            return await self._endpoint.ask(
                "POST",
                CHAT,
                lambda answer: completion_of(answer, request.messages),
                body,
                deadline=deadline,
                attempt_s=self._timeout_s / _ATTEMPTS_WITHIN_LIMIT,
                gate=self._gate,
                held_up=request.held_up,
            )
        except OutOfTime as error:
            raise EngineError(
                f"{error} within engine.timeout_s={self._limit_s:g} s; raise it if the server is only slow, or lower "
                "engine.max_concurrency"
            ) from None

    async def _ask_soon(
        self, method: str, path: str, read: Callable[[Any], T], body: object = None, **options: Any
    ) -> T:
        within_s = min(_LOOK_S, self._timeout_s)
        return await self._ask_within(within_s, method, path, read, body, max_attempts=_LOOK_ATTEMPTS, **options)

    async def _ask_within(
        self, within_s: float, method: str, path: str, read: Callable[[Any], T], body: object = None, **options: Any
    ) -> T:
        return await self._endpoint.ask(
            method,
            path,
            read,
            body,
            deadline=Deadline(within_s),
            attempt_s=within_s / _ATTEMPTS_WITHIN_LIMIT,
            **options,
        )

    def _explained(self, refusal: Refused) -> EngineError:
        """A refusal with what to do about it, where the status tells that."""
        hint = ""
        if refusal.status in (401, 403):
            hint = f"; {self._key_hint}"
        elif refusal.status in (404, 405) or refusal.status < 400:
            hint = "; check engine.base_url, which mostly ends in /v1, and engine.model"
        return EngineError(f"{refusal}{hint}")


def _load_of(metrics: str) -> Load:
    """Counts are the sums over a server's engines. Raises PassingFault if they are not there."""
    found: dict[str, list[float]] = {}
    try:
        for name, value in _METRIC.findall(metrics):
            found.setdefault(name, []).append(float(value))
        running, waiting = (int(sum(found[name])) for name in ("num_requests_running", "num_requests_waiting"))
    except (KeyError, ValueError, OverflowError):  # missing, no number, infinite
        raise PassingFault("metrics without vLLM's counts of requests") from None
    # Under the second name older vLLM has it.
    shares = found.get("kv_cache_usage_perc") or found.get("gpu_cache_usage_perc") or [0.0]
    return Load(running, waiting, max(shares))
