"""The plan of a training: the steps that it takes, the parameters that it trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.engines.config import ModelConfig
from tasks.training.config import TrainConfig
from tasks.training.gate.audit_data import audit_data
from tasks.training.gate.dry_run import plan, plan_rows
from tasks.training.launch import train_adapter


def write(path: Path, rows: int) -> Path:
    lines = [json.dumps({"prompt": f"What is {i} + 1?", "completion": str(i + 1)}) + "\n" for i in range(rows)]
    path.write_text("".join(lines))
    return path


def test_the_plan_has_the_steps_that_the_training_then_takes(tiny_model: Path, tmp_path: Path) -> None:
    data, model = [write(tmp_path / "a.jsonl", 7)], ModelConfig(path=str(tiny_model))
    config = TrainConfig(num_train_epochs=1.5, gradient_accumulation_steps=2, num_gpus=0, lora_r=4, learning_rate=1e-2)
    planned = plan(audit_data(data, model, config), model, config)
    trained = train_adapter(data, model, config, tmp_path / "out", "", lambda _: None)
    assert planned.steps == trained.counts.steps == 3
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "out" / "adapter_model.safetensors").values()
    assert planned.trained_parameters == sum(tensor.numel() for tensor in weights)


def test_the_plan_grows_with_what_costs_memory(tiny_model: Path, tmp_path: Path) -> None:
    data, model = [write(tmp_path / "a.jsonl", 3)], ModelConfig(path=str(tiny_model))

    def memory(**config: object) -> int:
        settings = TrainConfig.model_validate({"num_gpus": 0, **config})
        return plan(audit_data(data, model, settings), model, settings).memory_bytes

    assert memory(lora_r=128) > memory(lora_r=64)
    assert memory(per_device_train_batch_size=4) > memory(per_device_train_batch_size=2)
    full = TrainConfig(num_gpus=0, use_lora=False)
    planned = plan(audit_data(data, model, full), model, full)
    assert planned.trained_parameters == planned.parameters
    assert planned.weights_bytes == 16 * planned.parameters
    shown = dict(plan_rows(planned, full))
    assert shown["steps"] == "3 of 16 rows, in 3 passes"
    assert shown["trained parameters"].endswith("all of the model's")


def test_the_weights_of_a_large_model_are_not_loaded_for_it(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoTokenizer

    large = tmp_path / "large"
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(large)
    config = AutoConfig.from_pretrained(tiny_model)
    config.update({"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "head_dim": 128})
    config.layer_types = ["full_attention"] * 36
    config.save_pretrained(large)
    torch.save({}, large / "pytorch_model.bin")
    model = ModelConfig(path=str(large))
    found = audit_data([write(tmp_path / "a.jsonl", 3)], model, TrainConfig())
    planned = plan(found, model, TrainConfig(num_gpus=0))
    assert planned.parameters > 5e9
    assert planned.weights_bytes == pytest.approx(4 * planned.parameters + 16 * planned.trained_parameters)
