"""An engine that asks any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, OpenAI, DeepSeek, Anthropic.

Adapters are asked for by name, as vLLM serves them, and loaded into it where it allows that. Keys come from the
environment alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tasks.engines.adapter_probe import Probe, check_applied, make_probe
from tasks.engines.base import ChatRequest, Completion, Engine, EngineError
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.model_files import ModelNotFoundError
from tasks.engines.openai_http.chat_api import ListedModel
from tasks.engines.openai_http.chat_server import ChatServer
from tasks.engines.openai_http.concurrency import Places
from tasks.engines.openai_http.endpoint import WATCHERS, Backoff, HttpEndpoint
from tasks.engines.openai_http.fleet import Fleet

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_KEY_ENV = "OPENAI_API_KEY"

_MAX_LISTED = 10


class OpenAIHttpEngine(Engine):
    """Servers that somebody else runs. See the module's docstring."""

    name = "openai_http"

    def __init__(
        self,
        config: EngineConfig,
        model: ModelConfig,
        adapters: Mapping[str, Path] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """`model`: what the adapters were trained on.

        Raises:
            ValueError: there is no base_url, or no key where the config says.
        """
        if not config.base_url:
            raise ValueError(
                "engine.base_url: not given, and engine.kind openai_http needs it: the server's address as OpenAI's "
                "clients take it, e.g. http://127.0.0.1:8000/v1"
            )
        self.model = config.model or ""
        """The model to ask for; known after `start` if the config does not name it."""
        self._base = model
        self._adapters = dict(adapters or {})
        self._served_as: dict[str, str] = {}
        """What the servers call each adapter."""
        self._loaded: list[tuple[ChatServer, str]] = []
        """What this engine has loaded where, and will unload."""
        key = _read_key(config)
        hint = f"check the key in {config.api_key_env}" if key else f"no key was sent: {config.api_key_env} is not set"
        endpoints = [
            HttpEndpoint(
                url, key, config.max_concurrency + WATCHERS, backoff or Backoff(), on_overload=self._overloaded
            )
            for url in config.base_urls
        ]
        self._fleet = Fleet(
            [ChatServer(endpoint, config.timeout_s, hint, model.chat_template_args) for endpoint in endpoints]
        )

    async def start(self) -> None:
        """Look at what the servers offer, and have them load the adapters that they do not.

        Raises:
            EngineError: one cannot be reached.
            ValueError: address, key, model or adapter are not what it takes, or an adapter is not applied.
        """
        await self.look()
        any_vllm = any(server.is_vllm for server in self._fleet.servers)
        probe = await self._probe() if self._adapters and any_vllm else None
        for server in self._fleet.servers:
            for name, served_as in self._served_as.items():
                if served_as != name:
                    await server.load_adapter(served_as, str(self._adapters[name]))
                    self._loaded.append((server, served_as))
            if not server.is_vllm and self._adapters:
                logger.warning(
                    "%s is no vLLM: that it applies %s cannot be proven", server.url, ", ".join(self._adapters)
                )
            elif probe is not None:
                await prove_adapters(server, self.model, self._served_as, probe)

    async def look(self) -> None:
        """See what the servers offer, and that they have the adapters or can load them. Changes nothing there.

        Raises:
            EngineError, ValueError: see `start`.
        """
        for server in self._fleet.servers:
            await server.open()
            listed = await server.look()
            self.model = self.model or _only_model(server, listed)
            there = {model.name for model in listed}
            for name, folder in self._adapters.items():
                if name not in there and not await server.takes_adapters():
                    raise ValueError(
                        f"the adapter in {folder} cannot be loaded into {server.url}, which was not started here; "
                        f"serve it there under the name {name} (vLLM: --lora-modules {name}={folder}), let adapters be "
                        "loaded there (vLLM: --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True), or pass "
                        "--engine.kind in_process"
                    )
                # A name of this run's own: nobody else unloads it, and nothing older answers to it.
                self._served_as.setdefault(name, name if name in there else f"{name}-{uuid.uuid4().hex[:12]}")

    async def takes_adapters(self) -> bool:
        """Whether adapters can be loaded into all of the servers, once these have been looked at."""
        return all([await server.takes_adapters() for server in self._fleet.servers])

    def places(self, max_concurrency: int) -> Places:
        return self._fleet.places(max_concurrency)

    async def generate(self, request: ChatRequest) -> Completion:
        if request.adapter is not None and request.adapter not in self._adapters:
            raise EngineError(f"there is no adapter {request.adapter!r}; the engine has {sorted(self._adapters)}")
        return await self._fleet.chat(request, self._served_as[request.adapter] if request.adapter else self.model)

    async def stop(self) -> None:
        loaded, self._loaded = self._loaded, []
        for server, name in loaded:
            try:
                await server.unload_adapter(name)
            except EngineError as error:
                logger.warning("the adapter %s stays loaded: %s", name, error)
        await self._fleet.close()

    def _overloaded(self) -> None:
        self._fleet.overloaded()

    async def _probe(self) -> Probe | None:
        try:
            return await asyncio.to_thread(make_probe, self._base, self._adapters)
        except ModelNotFoundError as error:
            logger.warning("that the adapters are applied by the server cannot be proven: %s", error)
            return None


async def prove_adapters(server: ChatServer, base: str, served_as: Mapping[str, str], probe: Probe) -> None:
    """See that a vLLM server applies each adapter. `served_as`: what it calls them.

    Raises:
        AdapterNotAppliedError: it does not.
        EngineError: it cannot be asked.
    """
    without = await server.logprobs(base, probe.ids)
    for name, model in served_as.items():
        check_applied(name, probe, without, await server.logprobs(model, probe.ids), server.url)


def reach_server(config: EngineConfig, adapters: Mapping[str, Path] | None = None) -> str:
    """See that the servers are there and take key, model and adapters, and say which model is asked for.

    Raises:
        EngineError, ValueError: see `OpenAIHttpEngine`.
    """

    async def ask(engine: OpenAIHttpEngine) -> str:
        return engine.model

    return _with_a_look(config, adapters, ask)


def takes_adapters(config: EngineConfig) -> bool:
    """Whether adapters can be loaded into the servers while they run.

    Raises:
        EngineError, ValueError: see `OpenAIHttpEngine`.
    """
    return _with_a_look(config, None, OpenAIHttpEngine.takes_adapters)


def _with_a_look(
    config: EngineConfig, adapters: Mapping[str, Path] | None, ask: Callable[[OpenAIHttpEngine], Awaitable[T]]
) -> T:
    async def look() -> T:
        engine = OpenAIHttpEngine(config, ModelConfig(), adapters)
        try:
            await engine.look()
            return await ask(engine)
        finally:
            await engine.stop()

    return asyncio.run(look())


def _only_model(server: ChatServer, listed: Sequence[ListedModel]) -> str:
    names = [model.name for model in listed if not model.is_adapter]
    if len(names) != 1:
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        found = f"lists {', '.join(names[:_MAX_LISTED])}{more}" if names else "lists no model"
        raise ValueError(f"engine.model: not given, and {server.url} {found}; pass --engine.model NAME")
    return names[0]


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
