"""What a training would take, from the data's lengths and the model's config: no weights are loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from tasks.engines.config import ModelConfig
from tasks.engines.devices import pick_device, pick_dtype
from tasks.engines.model_files import resolve_model
from tasks.training.config import TrainConfig
from tasks.training.gate.audit import Audit
from tasks.training.lora import with_form_of_init
from tasks.training.processes.ranks import num_processes
from tasks.training.steps.plan import StepPlan
from tasks.training.steps.reply_loss import LOGITS_AT_ONCE
from tasks.training.steps.trainer import tokens_at_once

_TRAINED_BYTES = 16
"""Of a trained parameter: itself, its gradient and two moments of Adam, each in fp32."""
_BYTES_IN_4_BITS = 0.53
"""Of a parameter, with its share of the scales."""
_BACKWARD_LAYERS = 0.6
"""What the backward pass of a layer makes for the time being, in what the layer has kept for it."""
_CPU_HEAP = 1.8
"""Memory of the C library's heap for each byte in use: it is torn by tensors of all sizes. Measured: 1.3 to 2.4."""
_GB = 1e9


@dataclass(frozen=True)
class Plan:
    """Steps, and memory of one device in bytes. The memory is an estimate; the largest batch decides it."""

    steps: int
    rows_per_step: int
    devices: int
    on_gpu: bool
    parameters: int
    trained_parameters: int
    weights_bytes: int
    """The model, and what training keeps beside the trained parameters."""
    batch_bytes: int
    """What a batch of the longest rows keeps for its gradients, its logits included."""

    @property
    def memory_bytes(self) -> int:
        return self.weights_bytes + self.batch_bytes


def plan(found: Audit, model: ModelConfig, config: TrainConfig) -> Plan:
    """What training these rows would take on this machine.

    Raises:
        AdapterFormError: there is no adapter to go on from, or it has another form than the config wants.
    """
    config = with_form_of_init(config)
    device = pick_device(config.num_gpus)
    on_gpu = device.type == "cuda"
    skeleton = _skeleton(model)
    parameters = sum(p.numel() for p in skeleton.parameters())
    trained = _lora_parameters(skeleton, config.lora_r) if config.use_lora else parameters
    width = pick_dtype(device).itemsize
    weights = trained * _TRAINED_BYTES
    if config.use_lora:
        in_4_bits = _linear_parameters(skeleton) if config.quantization == "4bit" else 0
        weights += int((parameters - in_4_bits) * width + in_4_bits * _BYTES_IN_4_BITS)
    longest = found.lengths.longest
    tokens = min(tokens_at_once(config, longest, device), config.rows_per_step * longest)
    checkpointed = on_gpu if config.gradient_checkpointing is None else config.gradient_checkpointing
    return Plan(
        steps=len(StepPlan(found.rows, config.rows_per_step, config.num_train_epochs, config.seed)),
        rows_per_step=config.rows_per_step,
        devices=num_processes(config),
        on_gpu=on_gpu,
        parameters=parameters,
        trained_parameters=trained,
        weights_bytes=weights,
        batch_bytes=int(
            _kept_bytes(skeleton.config.get_text_config(), tokens, width, checkpointed) * (1 if on_gpu else _CPU_HEAP)
            + _head_bytes(
                skeleton.config.get_text_config(),
                min(tokens, math.ceil(tokens / longest) * found.reply_lengths.longest),
                width,
                is_trained=not config.use_lora,
            )
        ),
    )


def plan_rows(planned: Plan, config: TrainConfig) -> Iterator[tuple[str, str]]:
    """The plan, as name and value."""
    yield "steps", f"{planned.steps:,} of {planned.rows_per_step:,} rows, in {config.num_train_epochs:g} passes"
    beside = f" beside {planned.parameters:,} of the model" if config.use_lora else ", all of the model's"
    yield "trained parameters", f"{planned.trained_parameters:,}{beside}"
    one = "the GPU" if planned.on_gpu else "the CPU"
    where = one if planned.devices == 1 else f"each of {planned.devices} {'GPUs' if planned.on_gpu else 'processes'}"
    parts = f"{planned.weights_bytes / _GB:.2f} weights, {planned.batch_bytes / _GB:.2f} the longest batch"
    yield f"memory of {where}, estimated", f"{planned.memory_bytes / _GB:.2f} GB: {parts}"


def _skeleton(model: ModelConfig) -> Any:
    """The model's modules without their weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(resolve_model(model), trust_remote_code=model.trust_remote_code)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, trust_remote_code=model.trust_remote_code
        )


def _linear_layers(skeleton: Any) -> list[tuple[int, int]]:
    """Inputs and outputs of each linear layer but the last, GPT-2's kind among them."""
    output = skeleton.get_output_embeddings()
    return [
        (m.weight.shape[0], m.weight.shape[1])
        for m in skeleton.modules()
        if isinstance(m, torch.nn.Linear | Conv1D) and m is not output
    ]


def _lora_parameters(skeleton: Any, rank: int) -> int:
    """Two thin matrices beside each layer."""
    return sum(rank * (inputs + outputs) for inputs, outputs in _linear_layers(skeleton))


def _linear_parameters(skeleton: Any) -> int:
    return sum(inputs * outputs for inputs, outputs in _linear_layers(skeleton))


def _kept_bytes(config: Any, tokens: int, width: int, checkpointed: bool) -> float:
    """What tokens leave in memory until their gradients are there. A layer keeps about ten vectors of the hidden size
    and four of the intermediate size; with gradient checkpointing one of the hidden size, and the rest of one layer.
    """
    hidden, layers = int(config.hidden_size), int(config.num_hidden_layers)
    of_layer: int = width * (10 * hidden + 4 * (getattr(config, "intermediate_size", None) or 4 * hidden))
    kept = width * layers * hidden + of_layer if checkpointed else layers * of_layer
    return tokens * (kept + _BACKWARD_LAYERS * of_layer)


def _head_bytes(config: Any, trained_tokens: int, width: int, is_trained: bool) -> int:
    """Logits of trained tokens alone, never many at once, in fp32 twice and once in the model's precision if that is
    another; and the gradient of a head that is trained, which is added up in fp32.
    """
    words = int(config.vocab_size)
    logits = min(trained_tokens * words, LOGITS_AT_ONCE) * (8 if width == 4 else 8 + width)
    return logits + (2 * 4 * words * int(config.hidden_size) if is_trained else 0)
