"""The model folder: checked, then published with exactly the files that it promises.

With LoRA: config.json adapter_config.json adapter_model.safetensors tokenizer_config.json special_tokens_map.json
tokenizer.json training_args.bin; with a full fine-tune model.safetensors instead of the two adapter files. Beside them
loss_curve.png and run_config.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from tasks.rollout.artifact import publish_folder
from tasks.training.job import Job

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
RUN_FILES = ("training_args.bin", "loss_curve.png", "run_config.yaml")
LORA_FILES = ("config.json", "adapter_config.json", "adapter_model.safetensors", *TOKENIZER_FILES, *RUN_FILES)
FULL_FILES = ("config.json", "model.safetensors", *TOKENIZER_FILES, *RUN_FILES)


class UnusableWeightsError(RuntimeError):
    """The training ended with weights that must not be published."""


def publish_model(job: Job, model: Any, tokenizer: Any, training_args: Any, losses: Sequence[float]) -> None:
    """Write the model folder at `job.output_dir`, whole or not at all. `losses`: one per step.

    Raises:
        UnusableWeightsError: weights are NaN or infinite, or nothing has changed.
    """
    trained = _trained_weights(model, job)
    _check_finite(trained)
    _check_changed(trained, job)
    files = LORA_FILES if job.config.use_lora else FULL_FILES
    with publish_folder(job.output_dir) as folder, TemporaryDirectory(dir=job.work_dir) as scratch_name:
        scratch = Path(scratch_name)
        _save_weights(model, scratch, job)
        _save_tokenizer(tokenizer, scratch)
        torch.save(training_args, scratch / "training_args.bin")
        _save_loss_curve(losses, scratch / "loss_curve.png")
        (scratch / "run_config.yaml").write_text(job.run_config, encoding="utf-8")
        for name in files:  # the libraries write more (model cards, templates), and other things in other versions
            (folder / name).write_bytes((scratch / name).read_bytes())


def _trained_weights(model: Any, job: Job) -> Mapping[str, Tensor]:
    if not job.config.use_lora:
        return dict(model.state_dict())
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


def _check_finite(weights: Mapping[str, Tensor]) -> None:
    broken = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if broken:
        raise UnusableWeightsError(
            f"{len(broken)} of {len(weights)} trained tensors are NaN or infinite ({broken[0]}); "
            "nothing was published. Lower train.learning_rate."
        )


def _check_changed(weights: Mapping[str, Tensor], job: Job) -> None:
    changed: Iterable[bool]
    if job.config.use_lora:  # B starts at zero, and with it the adapter's whole effect
        changed = (bool(value.any()) for name, value in weights.items() if "lora_B" in name)
    else:
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(
            job.model_folder, dtype=torch.float32, trust_remote_code=job.trust_remote_code
        ).state_dict()
        changed = (not torch.equal(value.cpu(), base[name]) for name, value in weights.items())
    if not any(changed):
        raise UnusableWeightsError(
            "training left every weight as it was; nothing was published. Raise train.learning_rate."
        )


def _save_weights(model: Any, folder: Path, job: Job) -> None:
    model.config.save_pretrained(folder)
    if not job.config.use_lora:
        model.save_pretrained(folder, max_shard_size="1000TB")
        return
    model.save_pretrained(folder, save_embedding_layers=False)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    # Not the folder of the hub's local cache that it was loaded from.
    path.write_text(json.dumps({**config, "base_model_name_or_path": job.model_name}, indent=2, sort_keys=True))


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """With the chat template inside tokenizer_config.json, where every reader finds it."""
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    (folder / "special_tokens_map.json").write_text(json.dumps(tokenizer.special_tokens_map, indent=2))


def _save_loss_curve(losses: Sequence[float], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(1, len(losses) + 1), losses, marker="." if len(losses) < 50 else None)
    axes.set(xlabel="step", ylabel="loss per reply token (nats)", title="Training loss")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
