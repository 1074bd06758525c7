"""Engines: what runs policies. `open_engine` picks one; the heavy imports happen there, not here."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from tasks.engines.base import Engine
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.openmp import leave_cores_to_others

leave_cores_to_others()  # before anything imports torch


def engine_kind(config: EngineConfig) -> str:
    """The kind of engine that is meant: what `auto` comes to here."""
    if config.kind != "auto":
        return config.kind
    if importlib.util.find_spec("vllm") is None or config.num_gpus == 0:
        return "in_process"
    from tasks.engines.vllm.gpu_memory import visible_gpus

    return "vllm" if visible_gpus(config.num_gpus) else "in_process"


def open_engine(
    model: ModelConfig, engine: EngineConfig, adapters: Mapping[str, Path] | None = None, *, plays_bare: bool = True
) -> Engine:
    """The engine that the config asks for, not started yet.

    Args:
        adapters: name in requests -> adapter folder.
        plays_bare: whether requests without an adapter come, too.

    Raises:
        ValueError: the config names no script for a scripted engine, or one that cannot be imported; or no server; or
            vLLM is not here.
    """
    kind = engine_kind(engine)
    if kind == "scripted":
        from tasks.engines.scripted import scripted_engine

        return scripted_engine(engine)
    if kind == "openai_http":
        from tasks.engines.openai_http.engine import OpenAIHttpEngine

        return OpenAIHttpEngine(engine, model, adapters)
    if kind == "vllm":
        from tasks.engines.vllm.engine import VllmEngine

        return VllmEngine(model, engine, adapters, plays_bare)
    from tasks.engines.in_process.engine import InProcessEngine

    return InProcessEngine(model, engine, adapters)
