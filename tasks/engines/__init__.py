"""Engines: what runs policies. `open_engine` picks one; the heavy imports happen there, not here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasks.engines.base import Engine, EngineConfig, ModelConfig


def open_engine(model: ModelConfig, engine: EngineConfig, adapters: Mapping[str, Path] | None = None) -> Engine:
    """The engine that the config asks for, not started yet. `adapters`: name in requests -> adapter folder.

    Raises:
        ValueError: the config names no script for a scripted engine, or one that cannot be imported; or no server.
    """
    if engine.kind == "scripted":
        from tasks.engines.scripted import scripted_engine

        return scripted_engine(engine)
    if engine.kind == "openai_http":
        from tasks.engines.openai_http import OpenAIHttpEngine

        return OpenAIHttpEngine(engine, adapters)
    from tasks.engines.in_process import InProcessEngine

    return InProcessEngine(model, engine, adapters)
