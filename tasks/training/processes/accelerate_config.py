"""`train.accelerate_config`: a file as `accelerate config` writes it, read and judged before anything starts."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

Strategy = Literal["ddp", "fsdp", "deepspeed"]

_STRATEGIES: dict[str, Strategy] = {
    "NO": "ddp",
    "MULTI_GPU": "ddp",
    "MULTI_CPU": "ddp",
    "FSDP": "fsdp",
    "DEEPSPEED": "deepspeed",
}


class AccelerateConfigError(ValueError):
    """`train.accelerate_config` names a file that cannot be trained with."""


@dataclass(frozen=True)
class AccelerateConfig:
    """What Winnow needs to know of the file; accelerate itself reads the rest."""

    path: Path
    strategy: Strategy
    num_processes: int | None
    use_cpu: bool
    checkpoints_activations: bool
    """Whether FSDP computes them twice, which only one of the two may have it do."""


def read_accelerate_config(path: Path) -> AccelerateConfig:
    """Read the file.

    Raises:
        AccelerateConfigError: there is no such file, it is not one of accelerate's, or asks for what is not supported.
    """
    path = path.expanduser().absolute()
    content = _content(path)
    _check_keys(content, path)
    kind = str(content.get("distributed_type") or "NO")  # YAML reads a bare NO as false
    if kind not in _STRATEGIES:
        raise _refused(path, f"distributed_type {kind}", f"one of {', '.join(_STRATEGIES)}")
    strategy = _STRATEGIES[kind]
    if content.get("num_machines", 1) != 1:
        raise _refused(path, f"num_machines {content['num_machines']}", "1: a training runs on one machine")
    if (gpus := content.get("gpu_ids")) not in (None, "all"):
        raise _refused(path, f"gpu_ids {gpus}", "all; CUDA_VISIBLE_DEVICES says which GPUs there are to use")
    fsdp = _section(content, "fsdp_config", path)
    if strategy == "fsdp" and (version := fsdp.get("fsdp_version", 1)) != 2:
        raise _refused(path, f"fsdp_config.fsdp_version {version}", "2")
    use_cpu = kind == "MULTI_CPU" or bool(content.get("use_cpu", False))
    if strategy != "ddp" and use_cpu:
        raise _refused(path, f"{kind} with use_cpu", "GPUs for it; on the CPU: distributed_type MULTI_CPU")
    if strategy == "deepspeed":
        _check_deepspeed(_section(content, "deepspeed_config", path), path)
    processes = content.get("num_processes")
    if processes is not None and (type(processes) is not int or processes < 1):
        raise _refused(path, f"num_processes {processes!r}", "a number of at least 1, or none for all GPUs")
    twice = strategy == "fsdp" and bool(fsdp.get("fsdp_activation_checkpointing"))
    return AccelerateConfig(path, strategy, processes, use_cpu, twice)


def _section(content: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    section = content.get(name) or {}
    if not isinstance(section, dict):
        raise _refused(path, f"{name} {section!r}", "settings by name, as `accelerate config` writes them")
    return section


def _check_deepspeed(settings: dict[str, Any], path: Path) -> None:
    if file := settings.get("deepspeed_config_file"):
        wanted = "its settings here, in deepspeed_config, where they can be judged"
        raise _refused(path, f"deepspeed_config.deepspeed_config_file {file}", wanted)
    steps = settings.get("gradient_accumulation_steps", 1)
    if steps not in (1, "auto"):
        wanted = "1: how many rows a step has is said by train.gradient_accumulation_steps"
        raise _refused(path, f"deepspeed_config.gradient_accumulation_steps {steps}", wanted)
    if settings.get("zero_stage") == 3 and not settings.get("zero3_save_16bit_model"):
        wanted = "deepspeed_config.zero3_save_16bit_model true, or the trained weights could not be put together"
        raise _refused(path, "deepspeed_config.zero_stage 3 alone", wanted)
    if importlib.util.find_spec("deepspeed") is None:
        raise AccelerateConfigError(f"train.accelerate_config: {path} asks for DeepSpeed; pip install deepspeed first")


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML, too
    except OSError as error:
        raise AccelerateConfigError(
            f"train.accelerate_config: cannot read {path}: {error.strerror}; `accelerate config --config_file {path}` "
            "writes one"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        at = getattr(error, "problem_mark", None)
        where = f"{path}:{at.line + 1}" if at else str(path)
        raise AccelerateConfigError(f"train.accelerate_config: {where} is not YAML; write it anew") from None
    if not isinstance(content, dict):
        raise _refused(path, type(content).__name__, "settings by name, as `accelerate config` writes them")
    return content


def _check_keys(content: dict[str, Any], path: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig  # it takes seconds to import

    known = {*ClusterConfig.__dataclass_fields__, "fp16", "dynamo_backend"}
    if unknown := sorted(str(key) for key in content.keys() - known):
        raise _refused(path, f"the unknown setting {', '.join(unknown)}", "those of `accelerate config`")
    if content.get("compute_environment", "LOCAL_MACHINE") != "LOCAL_MACHINE":
        raise _refused(path, f"compute_environment {content['compute_environment']}", "LOCAL_MACHINE")


def _refused(path: Path, found: str, wanted: str) -> AccelerateConfigError:
    return AccelerateConfigError(f"train.accelerate_config: found {found} in {path}; wanted {wanted}")
