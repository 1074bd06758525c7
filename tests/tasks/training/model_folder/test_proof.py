"""Weights that are rubbish, or were trained to nothing, are refused before they are published."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tasks.training.model_folder.proof import UnusableWeightsError, prove
from tests.tasks.training.jobs import adapted, job_of, write_adapter


def test_an_adapter_that_changes_what_the_model_says_is_proven(tiny_model: Path, tmp_path: Path) -> None:
    job = job_of(tiny_model, tmp_path)
    assert prove(write_adapter(job, tmp_path / "a"), job) > 1e-3


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (float("nan"), "NaN or infinite .*Lower train.learning_rate"),
        (float("inf"), "NaN or infinite .*Lower train.learning_rate"),
        (0.0, "left every weight as it was; nothing was published. Raise train.learning_rate"),
        (1e-12, "do not change what the model says.*Raise train.learning_rate"),
    ],
)
def test_an_adapter_that_is_of_no_use_is_refused(tiny_model: Path, tmp_path: Path, size: float, said: str) -> None:
    job = job_of(tiny_model, tmp_path)
    with pytest.raises(UnusableWeightsError, match=said):
        prove(write_adapter(job, tmp_path / "a", size), job)


def test_an_adapter_that_is_as_the_one_before_it_was_not_trained(tiny_model: Path, tmp_path: Path) -> None:
    before = write_adapter(job_of(tiny_model, tmp_path), tmp_path / "before")
    job = job_of(tiny_model, tmp_path, init_adapter=before)
    with pytest.raises(UnusableWeightsError, match="left every weight as it was"):
        prove(before, job)


def test_an_adapter_must_change_what_the_one_before_it_said(tiny_model: Path, tmp_path: Path) -> None:
    before = write_adapter(job_of(tiny_model, tmp_path), tmp_path / "before")
    job = job_of(tiny_model, tmp_path, init_adapter=before)
    weights = load_file(before / "adapter_model.safetensors")
    for size, folder in ((1e-9, tmp_path / "same"), (1e-2, tmp_path / "other")):
        shutil.copytree(before, folder)
        moved = {name: value + size * torch.randn_like(value) for name, value in weights.items()}
        save_file(moved, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnusableWeightsError, match="do not change what the model says with before: by"):
        prove(tmp_path / "same", job)
    assert prove(tmp_path / "other", job) > 1e-3


def test_of_dora_the_lengths_count_as_well(tiny_model: Path, tmp_path: Path) -> None:
    job = job_of(tiny_model, tmp_path, use_dora=True)
    model = adapted(job, size=0.0)
    model.save_pretrained(tmp_path / "untrained", save_embedding_layers=False)
    with pytest.raises(UnusableWeightsError, match="left every weight as it was"):
        prove(tmp_path / "untrained", job)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1.1)
    model.save_pretrained(tmp_path / "longer", save_embedding_layers=False)
    assert prove(tmp_path / "longer", job) > 1e-3


def test_all_weights_are_compared_with_the_base(tiny_model: Path, tmp_path: Path) -> None:
    job = job_of(tiny_model, tmp_path, use_lora=False)
    with pytest.raises(UnusableWeightsError, match="left every weight as it was"):
        prove(tiny_model, job)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.model.layers[0].mlp.up_proj.weight.data.mul_(1.5)
    model.save_pretrained(tmp_path / "trained")
    assert prove(tmp_path / "trained", job) > 1e-4
