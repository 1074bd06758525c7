"""An engine of vLLM servers that it starts and stops itself: one for each model on each group of GPUs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tasks.engines.adapter_probe import Probe, make_probe
from tasks.engines.base import ChatRequest, Completion, Engine, EngineError
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.model_files import is_lora, resolve_model
from tasks.engines.openai_http.chat_server import ChatServer
from tasks.engines.openai_http.concurrency import Places
from tasks.engines.openai_http.engine import prove_adapters
from tasks.engines.openai_http.fleet import Fleet
from tasks.engines.vllm.available import check_vllm
from tasks.engines.vllm.command import BASE_NAME, ServerSpec
from tasks.engines.vllm.gpu_memory import UsedMib, used_memory, visible_gpus, wait_until_freed
from tasks.engines.vllm.server import VllmServer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Model:
    """A model that servers are needed for."""

    folder: Path
    lora: Mapping[str, Path]


class VllmEngine(Engine):
    """vLLM, started and stopped. See the module's docstring."""

    name = "vllm"

    def __init__(
        self, model: ModelConfig, config: EngineConfig, adapters: Mapping[str, Path] | None, plays_bare: bool
    ) -> None:
        """`plays_bare`: whether requests without an adapter come, too.

        Raises:
            ValueError: vLLM cannot be started here.
        """
        check_vllm(config.vllm)
        self._model = model
        self._config = config
        self._adapters = dict(adapters or {})
        self._plays_bare = plays_bare
        self._servers: list[VllmServer] = []
        self._fleet: Fleet | None = None
        self._by_model: dict[str | None, list[ChatServer]] = {}
        """The servers of the model itself under None, those of whole models under the name of their policy."""
        self._probe: asyncio.Task[Probe] | None = None
        self._used_before: UsedMib = {}

    async def start(self) -> None:
        """Start the servers and wait until all of them answer, with adapters that are proven to be applied.

        Raises:
            EngineError: one does not start.
            ValueError: one does not, for a reason that will stay, or an adapter is not applied.
        """
        models = self._models()
        gpus = await asyncio.to_thread(visible_gpus, self._config.num_gpus)
        self._used_before = await asyncio.to_thread(used_memory, gpus)
        groups = _groups(gpus, self._config.vllm.tensor_parallel, self._config.num_gpus)
        for name, model in models.items():
            for group in groups:
                spec = ServerSpec(
                    model.folder,
                    model.lora,
                    group,
                    1 / len(models),
                    self._model.trust_remote_code,
                    self._model.chat_template_args,
                )
                server = VllmServer(spec, self._config, self._overloaded, partial(self._prove, model.lora))
                self._servers.append(server)
                self._by_model.setdefault(name, []).append(server.chat)
        self._fleet = Fleet([server.chat for server in self._servers])
        try:
            async with asyncio.TaskGroup() as starting:
                if lora := {name: path for model in models.values() for name, path in model.lora.items()}:
                    self._probe = starting.create_task(asyncio.to_thread(make_probe, self._model, lora))
                for server in self._servers:
                    starting.create_task(server.start())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    def places(self, max_concurrency: int) -> Places:
        assert self._fleet is not None
        return self._fleet.places(max_concurrency)

    async def generate(self, request: ChatRequest) -> Completion:
        if self._fleet is None:
            raise EngineError("the engine is not running: it has not been started, or has been stopped")
        adapter = request.adapter
        if adapter is not None and adapter not in self._adapters:
            raise EngineError(f"there is no adapter {adapter!r}; the engine has {sorted(self._adapters)}")
        if adapter in self._by_model:
            return await self._fleet.chat(request, BASE_NAME, self._by_model[adapter])
        return await self._fleet.chat(request, adapter or BASE_NAME, self._by_model[None])

    async def stop(self) -> None:
        """End the servers, and see that they have given the GPUs' memory back.

        Raises:
            EngineError: it is held still.
        """
        fleet, self._fleet = self._fleet, None
        servers, self._servers = self._servers, []
        if fleet is not None:
            await fleet.close()
        ends = await asyncio.gather(*(server.stop() for server in servers), return_exceptions=True)
        if servers:
            await wait_until_freed(self._used_before)
        for error in filter(None, ends):
            raise error

    def _models(self) -> dict[str | None, _Model]:
        lora = {name: path for name, path in self._adapters.items() if is_lora(path)}
        models: dict[str | None, _Model] = {}
        if self._plays_bare or lora:
            models[None] = _Model(resolve_model(self._model), lora)
        whole = {name: path for name, path in self._adapters.items() if name not in lora}
        return models | {name: _Model(path, {}) for name, path in whole.items()}

    async def _prove(self, adapters: Mapping[str, Path], server: ChatServer) -> None:
        if adapters:
            assert self._probe is not None
            await prove_adapters(server, BASE_NAME, {name: name for name in adapters}, await self._probe)

    def _overloaded(self) -> None:
        if self._fleet is not None:
            self._fleet.overloaded()


def _groups(gpus: Sequence[str], size: int, wanted: int | None) -> list[Sequence[str]]:
    """The GPUs that hold one copy of a model each; without GPUs one copy, on the CPU. `wanted`: engine.num_gpus.

    Raises:
        ValueError: there are not enough for one.
    """
    in_groups = len(gpus) // size * size
    if in_groups < max(len(gpus), wanted or 0):
        logger.warning(
            "%d GPUs are used: engine.num_gpus is %s, %d of them are visible, and a copy of the model takes %d",
            *(in_groups, "not given" if wanted is None else wanted, len(gpus), size),
        )
    if not gpus:
        return [()]
    if len(gpus) < size:
        raise ValueError(
            f"engine.vllm.tensor_parallel: found {size}, and there are {len(gpus)} GPUs to use; lower it, or raise "
            "engine.num_gpus"
        )
    return [gpus[i : i + size] for i in range(0, in_groups, size)]
