"""LoRA adapters that were never trained, for tests of who applies them."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

WEIGHTS = "adapter_model.safetensors"


def random_adapter(model: Path, folder: Path, size: float = 0.1) -> Path:
    """An adapter with random weights, the larger the more it changes."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), config)
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=size)
    adapted.save_pretrained(folder)
    return folder


def without_effect(adapter: Path, folder: Path) -> Path:
    """The same adapter with its second matrices at zero: it changes nothing."""
    shutil.copytree(adapter, folder)
    weights = {name: w.zero_() if "lora_B" in name else w for name, w in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS)
    return folder
