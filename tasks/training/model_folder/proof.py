"""What stands before publishing: weights that were trained to nothing, or to rubbish, never get their final name.

It looks at the files that would be published, loads them onto the base model as any reader would, and has both read a
fixed text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from tasks.engines.adapter_probe import make_probe
from tasks.engines.config import ModelConfig
from tasks.engines.devices import pick_device, pick_dtype
from tasks.engines.model_files import ADAPTER_WEIGHTS, is_lora
from tasks.training.job import Job
from tasks.training.lora import load_model

MODEL_WEIGHTS = "model.safetensors"
_LEAST_EFFECT = 1e-6
"""Mean change of a token's log-probability, in nats. Below it is what rounding does."""

_ROUNDINGS = 8
"""By so many of its precision a length of thousands of weights may be off."""


class UnusableWeightsError(RuntimeError):
    """The training ended with weights that must not be published."""


def prove(folder: Path, job: Job) -> float:
    """See that weights in a folder are numbers, were trained, and change what the model says.

    Returns:
        How much they change what the base model says: the mean over the tokens of a fixed text, in nats of
        log-probability, up or down.

    Raises:
        UnusableWeightsError: they are or do not. The message says what to do.
    """
    weights = load_file(folder / (ADAPTER_WEIGHTS if is_lora(folder) else MODEL_WEIGHTS))
    _check_finite(weights)
    _check_changed(weights, job)
    return _effect(folder, job)


def _check_finite(weights: Mapping[str, Tensor]) -> None:
    broken = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if broken:
        raise UnusableWeightsError(
            f"{len(broken)} of {len(weights)} trained tensors are NaN or infinite ({broken[0]}); "
            "nothing was published. Lower train.learning_rate."
        )


def _check_changed(weights: Mapping[str, Tensor], job: Job) -> None:
    if job.config.init_adapter is not None:
        before = load_file(job.config.init_adapter / ADAPTER_WEIGHTS)
        is_changed = any(not torch.equal(value, before[name]) for name, value in weights.items() if name in before)
    elif job.config.use_lora:  # B starts at zero, and with it the adapter's whole effect but that of lengths
        is_changed = any(bool(value.any()) for name, value in weights.items() if "lora_B" in name)
        is_changed = is_changed or _other_lengths(weights, job)
    else:
        base = _base_weights(job)
        is_changed = any(not torch.equal(value.float(), base[name].float()) for name, value in weights.items())
    if not is_changed:
        raise UnusableWeightsError(
            "training left every weight as it was; nothing was published. Raise train.learning_rate."
        )


def _other_lengths(weights: Mapping[str, Tensor], job: Job) -> bool:
    """Whether DoRA's vectors are other than at the start, where they are the lengths of the base's weight vectors."""
    lengths = {name: value for name, value in weights.items() if "lora_magnitude_vector" in name}
    if not lengths:
        return False
    trained_in = pick_dtype(pick_device(job.config.num_gpus))  # the base's, and so were the lengths computed
    whole = job.config.model_copy(update={"quantization": "none"})
    before = get_peft_model_state_dict(
        load_model(job.model_copy(update={"config": whole}), torch.float32, torch.device("cpu"))
    )
    rounding = _ROUNDINGS * torch.finfo(trained_in).eps
    return any(not torch.allclose(value, before[name], rtol=rounding, atol=0) for name, value in lengths.items())


def _base_weights(job: Job) -> Mapping[str, Tensor]:
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(job.model_folder, dtype="auto", trust_remote_code=job.trust_remote_code)
    return dict(base.state_dict())


def _effect(folder: Path, job: Job) -> float:
    base = ModelConfig(
        path=str(job.model_folder),
        trust_remote_code=job.trust_remote_code,
        chat_template_args=job.chat_template_args,
    )
    began_with = job.config.init_adapter
    probe = make_probe(base, {"trained": folder, **({"before": began_with} if began_with else {})})
    trained = probe.adapters["trained"]
    effect = _mean_change(probe.base, trained)
    learnt = _mean_change(probe.adapters["before"], trained) if began_with else effect
    if not math.isfinite(effect):
        raise UnusableWeightsError(
            "with the trained weights the log-probabilities of a fixed text are NaN or infinite; nothing was "
            "published. Lower train.learning_rate."
        )
    if learnt < _LEAST_EFFECT:
        since = f" with {began_with.name}" if began_with else ""
        raise UnusableWeightsError(
            f"the trained weights do not change what the model says{since}: by {learnt:.1g} nats a token of a fixed "
            "text, as rounding does; nothing was published. Raise train.learning_rate, or train for more steps."
        )
    return effect


def _mean_change(before: Sequence[float], after: Sequence[float]) -> float:
    return math.fsum(abs(a - b) for a, b in zip(after, before, strict=True)) / len(before)
