"""The command and the environment that start one vLLM server. Pure functions."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.engines.vllm.config import VllmConfig

BASE_NAME = "winnow/base"
"""What the server calls the model itself. No policy can have this name."""
HOST = "127.0.0.1"

_MODULE = "vllm.entrypoints.openai.api_server"
_MODEL_IN_IMAGE = "/model"
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The most that vLLM can be told of the adapters' ranks."""
_PORT_IN_IMAGE = 8000
_CPU_CACHE_GIB = "1"
"""Without a GPU: memory for keys and values. Whoever wants more sets VLLM_CPU_KVCACHE_SPACE."""


@dataclass(frozen=True)
class ServerSpec:
    """What one server serves, and on which GPUs."""

    folder: Path
    """The model's files."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """LoRA adapters that it has to have room for, by the names that requests call them."""
    gpus: Sequence[str] = ()
    """As CUDA_VISIBLE_DEVICES has them; none: the CPU."""
    memory_share: float = 1.0
    """Of what the config allows, where several servers share the GPUs."""
    trust_remote_code: bool = False
    chat_template_args: Mapping[str, Any] = field(default_factory=dict)
    """What the model's chat template is told with each request."""


def server_command(spec: ServerSpec, config: VllmConfig, port: int) -> list[str]:
    """vLLM's server as installed here."""
    program = [sys.executable, "-m", _MODULE, "--host", HOST, "--port", str(port)]
    return program + _arguments(spec, config, str(spec.folder))


def server_environment(spec: ServerSpec, key: str) -> dict[str, str]:
    """This process's environment, and the server's key: in here, not on a command line that others can read."""
    environment = {
        **os.environ,
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    environment["CUDA_VISIBLE_DEVICES"] = ",".join(spec.gpus)  # none: those that are there are hidden
    if not spec.gpus:
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", _CPU_CACHE_GIB)
    return environment


def image_command(spec: ServerSpec, config: VllmConfig, port: int, name: str) -> list[str]:
    """The same server in a container called `name`, which sees the model's and the adapters' folders read-only."""
    assert config.image is not None
    docker = ["docker", "run", "--rm", "--init", "--name", name, "--ipc", "host"]
    docker += ["--publish", f"{HOST}:{port}:{_PORT_IN_IMAGE}"]
    for variable in ("VLLM_API_KEY", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_NO_USAGE_STATS"):
        docker += ["--env", variable]
    if spec.gpus:
        docker += ["--gpus", f'"device={",".join(spec.gpus)}"']
    mounts = {
        spec.folder: _MODEL_IN_IMAGE,
        **{path: adapter_path(n, spec, config) for n, path in spec.adapters.items()},
    }
    for folder, path in mounts.items():
        docker += ["--volume", f"{folder}:{path}:ro"]
    # Within the container every address is its own; outside of it only loopback is published.
    program = ["--entrypoint", "python3", config.image, "-m", _MODULE, "--host", "0.0.0.0"]
    program += ["--port", str(_PORT_IN_IMAGE)]
    return docker + program + _arguments(spec, config, _MODEL_IN_IMAGE)


def remove_container(name: str) -> list[str]:
    """The command that ends a container: killing docker's client would leave it."""
    return ["docker", "rm", "--force", name]


def _arguments(spec: ServerSpec, config: VllmConfig, folder: str) -> list[str]:
    arguments = ["--model", folder, "--served-model-name", BASE_NAME, "--dtype", config.dtype]
    arguments += ["--generation-config", "vllm"]  # requests say themselves how their replies are drawn
    arguments += ["--disable-uvicorn-access-log"]
    arguments += ["--enable-prefix-caching" if config.prefix_caching else "--no-enable-prefix-caching"]
    if config.max_model_len is not None:
        arguments += ["--max-model-len", str(config.max_model_len)]
    if spec.trust_remote_code:
        arguments += ["--trust-remote-code"]
    if spec.gpus:
        arguments += ["--gpu-memory-utilization", f"{config.gpu_memory_utilization * spec.memory_share:.3g}"]
        arguments += ["--tensor-parallel-size", str(len(spec.gpus))]
    else:
        # Compiling for a CPU takes minutes and gains nothing for small models. And vLLM 0.32 dies there of a prompt
        # that is read in pieces, if its request has a seed ("CPU Generator does not use offset").
        arguments += ["--enforce-eager", "--no-enable-chunked-prefill"]
    if spec.adapters:
        # On a CPU, vLLM 0.32 gives whoever asks for no adapter the one in the last place, if both are in one batch:
        # that place stays empty.
        places = len(spec.adapters) + (0 if spec.gpus else 1)
        arguments += ["--enable-lora", "--max-loras", str(places)]
        arguments += ["--max-lora-rank", str(max_lora_rank(spec.adapters))]
    return arguments + list(config.extra_args)


def adapter_path(name: str, spec: ServerSpec, config: VllmConfig) -> str:
    """Where the server finds an adapter's folder."""
    return f"/adapters/{name}" if config.image else str(spec.adapters[name])


def max_lora_rank(adapters: Mapping[str, Path]) -> int:
    """The least rank that vLLM can be told and that all adapters fit into.

    Raises:
        ValueError: vLLM cannot serve one of them.
    """
    largest = 1
    for name, folder in adapters.items():
        config = json.loads((folder / "adapter_config.json").read_text())
        ranks = [config["r"], *(config.get("rank_pattern") or {}).values()]
        if config.get("use_dora"):
            raise ValueError(f"vLLM cannot serve the adapter {name} in {folder}: DoRA; pass --engine.kind in_process")
        if max(ranks) > _RANKS[-1]:
            raise ValueError(
                f"vLLM cannot serve the adapter {name} in {folder}: rank {max(ranks)}, and the most that it takes is "
                f"{_RANKS[-1]}; pass --engine.kind in_process"
            )
        largest = max(largest, *ranks)
    return next(rank for rank in _RANKS if rank >= largest)
