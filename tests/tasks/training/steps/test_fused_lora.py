"""A LoRA layer in fewer passes is the same layer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from tasks.training.steps.fused_lora import fuse_lora


def small_model(**lora: Any) -> Any:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4, bias=False))
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["0", "2"], init_lora_weights=False, **lora)
    return get_peft_model(layers, config)


def outputs_and_gradients(model: Any) -> list[Tensor]:
    x = torch.linspace(-1, 1, 36).reshape(2, 3, 6).requires_grad_()
    output = model(x)
    (output * torch.arange(4)).sum().backward()
    return [output, x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]  # type: ignore[list-item]


@pytest.mark.parametrize("rslora", [False, True])
def test_a_fused_layer_gives_the_outputs_and_the_gradients_of_pefts(rslora: bool) -> None:
    model = small_model(use_rslora=rslora)
    fused = copy.deepcopy(model)
    assert fuse_lora(fused) == 2
    torch.testing.assert_close(outputs_and_gradients(fused), outputs_and_gradients(model))
    with fused.disable_adapter(), model.disable_adapter():
        torch.testing.assert_close(fused(torch.ones(1, 6)), model(torch.ones(1, 6)))


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"lora_dropout": 0.1}])
def test_layers_that_compute_more_are_left_to_peft(lora: dict[str, Any]) -> None:
    assert fuse_lora(small_model(**lora)) == 0


def test_a_frozen_bf16_layer_is_computed_in_bf16_and_its_adapter_gets_fp32_gradients() -> None:
    model = get_peft_model(nn.Sequential(nn.Linear(6, 10, dtype=torch.bfloat16)), LoraConfig(r=3, target_modules=["0"]))
    assert fuse_lora(model) == 1
    model(torch.ones(2, 6, dtype=torch.bfloat16)).sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {p.grad.dtype for p in trained if p.grad is not None} == {torch.float32}
    assert model(torch.ones(2, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16
