"""A model and its adapters in memory, switched without loading anything again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tasks.engines.chat_tokens import check_template_args, stop_token_ids
from tasks.engines.config import ModelConfig
from tasks.engines.devices import pick_dtype
from tasks.engines.in_process.attention import use_grouped_attention
from tasks.engines.model_files import is_lora, quiet_transformers, resolve_model


class Policies:
    """The bare model, and the same model with each adapter. Not thread-safe: one thread owns it."""

    def __init__(self, model: ModelConfig, adapters: Mapping[str, Path], device: torch.device) -> None:
        """Load everything. An adapter folder that holds a whole model (a full fine-tune) is loaded beside the base."""
        from transformers import AutoTokenizer

        quiet_transformers()
        folder = resolve_model(model)
        self.device = device
        self._trust = model.trust_remote_code
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=self._trust)
        if self.tokenizer.chat_template is None:
            raise ValueError(f"{folder} has no chat template, so chats cannot be put to it; give an instruct model")
        self.template_args = model.chat_template_args
        check_template_args(self.tokenizer, self.template_args)
        base = self._load(folder)
        self.stop_ids = stop_token_ids(self.tokenizer, base.generation_config, self.template_args)
        self.context_tokens = int(base.config.get_text_config().max_position_embeddings)
        self._whole = {name: self._load(path) for name, path in adapters.items() if not is_lora(path)}
        self._peft_names = {name: f"adapter_{i}" for i, name in enumerate(n for n in adapters if is_lora(adapters[n]))}
        self._base = self._with_adapters(base, adapters)

    def select(self, adapter: str | None) -> Any:
        """The model to call for requests with this adapter; valid until the next call."""
        if adapter in self._whole:
            return self._whole[adapter]
        if not self._peft_names:
            return self._base
        if adapter is None:
            self._base.base_model.disable_adapter_layers()
        else:
            self._base.set_adapter(self._peft_names[adapter])
            self._base.base_model.enable_adapter_layers()
        return self._base

    def _load(self, folder: Path) -> Any:
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=pick_dtype(self.device), trust_remote_code=self._trust
        )
        use_grouped_attention(model)
        return model.to(self.device).eval()

    def _with_adapters(self, base: Any, adapters: Mapping[str, Path]) -> Any:
        from peft import PeftModel

        model = base
        for name, peft_name in self._peft_names.items():
            if model is base:
                model = PeftModel.from_pretrained(base, adapters[name], adapter_name=peft_name)
            else:
                model.load_adapter(adapters[name], adapter_name=peft_name)
        return model.eval()
