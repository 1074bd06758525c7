"""An engine that asks any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, OpenAI, DeepSeek, Anthropic.

Adapters are asked for by name, as vLLM serves them. Keys come from the environment alone.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tasks.engines.base import ChatRequest, Completion, Engine, EngineConfig, EngineError
from tasks.engines.chat_api import (
    SERVERS_WITH_OWN_DEFAULTS,
    ListedModel,
    completion_of,
    is_too_long,
    listed_models,
    no_room,
    request_body,
    wants_other_limit_name,
)
from tasks.engines.http_endpoint import Backoff, HttpEndpoint, OutOfTime, Refused

T = TypeVar("T")

DEFAULT_KEY_ENV = "OPENAI_API_KEY"
CHAT = "/chat/completions"

_LOOK_S = 30.0
_LOOK_ATTEMPTS = 3
"""A first look at a server gives up soon: what is wrong then is mostly its address."""
_ATTEMPTS_WITHIN_LIMIT = 2
"""One attempt may take this fraction (1/n) of a request's time, so that one stall never uses it up."""
_HEAD_START = 0.02
"""The rollout loop has the same limit as a request has here; this much earlier, what went wrong is still told."""
_MAX_LISTED = 10


class OpenAIHttpEngine(Engine):
    """A server that somebody else runs. See the module's docstring."""

    name = "openai_http"

    def __init__(
        self, config: EngineConfig, adapters: Mapping[str, Path] | None = None, backoff: Backoff | None = None
    ) -> None:
        """Raises ValueError: there is no base_url, or no key where the config says."""
        if config.base_url is None:
            raise ValueError(
                "engine.base_url: not given, and engine.kind openai_http needs it: the server's address as OpenAI's "
                "clients take it, e.g. http://127.0.0.1:8000/v1"
            )
        self.model = config.model or ""
        """The model to ask for; known after `start` if the config does not name it."""
        self._config = config
        self._adapters = dict(adapters or {})
        self._has_key = (key := _read_key(config)) is not None
        self._server = HttpEndpoint(config.base_url, key, config.max_concurrency, backoff or Backoff())
        self._limit_name = "max_tokens"
        self._spell_out = False

    async def start(self) -> None:
        """Look at what the server offers.

        Raises:
            EngineError: it cannot be reached.
            ValueError: address, key, model or adapter are not what it takes.
        """
        await self._server.open()
        listed = await self._look()
        self.model = self.model or self._only_model(listed)
        self._spell_out = any(model.owner in SERVERS_WITH_OWN_DEFAULTS for model in listed)
        names = {model.name for model in listed}
        for name, folder in self._adapters.items():
            if name not in names:
                raise ValueError(
                    f"the adapter in {folder} cannot be loaded into {self._server.url}, which was not started here; "
                    f"serve it there under the name {name} (vLLM: --lora-modules {name}={folder}), or pass "
                    "--engine.kind in_process"
                )

    async def generate(self, request: ChatRequest) -> Completion:
        if request.adapter is not None and request.adapter not in self._adapters:
            raise EngineError(f"there is no adapter {request.adapter!r}; the engine has {sorted(self._adapters)}")
        timeout_s = self._config.timeout_s * (1 - _HEAD_START)
        deadline = time.monotonic() + timeout_s
        limit_name = self._limit_name
        body = request_body(request, request.adapter or self.model, limit_name, self._spell_out)
        while True:
            try:
                return await self._chat(body, request, deadline, timeout_s / _ATTEMPTS_WITHIN_LIMIT)
            except Refused as refusal:
                if is_too_long(refusal):
                    # Servers that are given no limit take what room there is, and that is less than the limit was.
                    if body.pop(limit_name, None) is None:
                        return no_room(request)
                elif wants_other_limit_name(refusal) and limit_name in body:
                    body["max_completion_tokens"] = body.pop(limit_name)
                    self._limit_name = limit_name = "max_completion_tokens"
                else:
                    raise self._explained(refusal) from None

    async def stop(self) -> None:
        await self._server.close()

    async def _chat(self, body: dict[str, Any], request: ChatRequest, deadline: float, attempt_s: float) -> Completion:
        try:
            return await self._server.ask(
                "POST",
                CHAT,
                lambda answer: completion_of(answer, request.messages),
                body,
                deadline=deadline,
                attempt_s=attempt_s,
            )
        except OutOfTime as error:
            raise EngineError(
                f"{error} within engine.timeout_s={self._config.timeout_s:g} s; raise it if the server is only slow, "
                "or lower engine.max_concurrency"
            ) from None

    async def _look(self) -> list[ListedModel]:
        """What the server lists. One that has no list must at least have the place where chats are answered."""
        try:
            return await self._first_look("GET", "/models", listed_models)
        except Refused as refusal:
            if refusal.status not in (404, 405, 501):
                raise ValueError(str(self._explained(refusal))) from None
        try:
            await self._first_look("POST", CHAT, bool, {})
        except OutOfTime:
            pass  # it answers, though it cannot cope with an empty request
        except Refused as refusal:
            if refusal.status in (401, 403, 404, 405) or refusal.status < 400:
                raise ValueError(str(self._explained(refusal))) from None
        return []

    async def _first_look(self, method: str, path: str, read: Callable[[Any], T], body: object = None) -> T:
        within_s = min(_LOOK_S, self._config.timeout_s)
        return await self._server.ask(
            method,
            path,
            read,
            body,
            deadline=time.monotonic() + within_s,
            attempt_s=within_s / _ATTEMPTS_WITHIN_LIMIT,
            max_attempts=_LOOK_ATTEMPTS,
        )

    def _only_model(self, listed: Sequence[ListedModel]) -> str:
        names = [model.name for model in listed if not model.is_adapter]
        if len(names) != 1:
            more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
            found = f"lists {', '.join(names[:_MAX_LISTED])}{more}" if names else "lists no model"
            raise ValueError(f"engine.model: not given, and {self._server.url} {found}; pass --engine.model NAME")
        return names[0]

    def _explained(self, refusal: Refused) -> EngineError:
        """A refusal with what to do about it, where the status tells that."""
        hint = ""
        if refusal.status in (401, 403):
            variable = self._config.api_key_env
            hint = f"; check the key in {variable}" if self._has_key else f"; no key was sent: {variable} is not set"
        elif refusal.status in (404, 405) or refusal.status < 400:
            hint = "; check engine.base_url, which mostly ends in /v1, and engine.model"
        return EngineError(f"{refusal}{hint}")


def reach_server(config: EngineConfig, adapters: Mapping[str, Path] | None = None) -> str:
    """See that the server is there and takes key, model and adapters, and say which model is asked for.

    Raises:
        EngineError, ValueError: see `OpenAIHttpEngine`.
    """

    async def look() -> str:
        engine = OpenAIHttpEngine(config, adapters)
        async with engine:
            return engine.model

    return asyncio.run(look())


def _read_key(config: EngineConfig) -> str | None:
    """The key in the environment variable that the config names."""
    variable = config.api_key_env
    key = os.environ.get(variable, "").strip()
    if not key:
        if variable != DEFAULT_KEY_ENV:
            raise ValueError(
                f"engine.api_key_env: {variable} is not set in the environment; set it to the server's key"
            )
        return None
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"engine.api_key_env: what {variable} holds is no key; wanted printable ASCII on one line")
    return key
