"""Where a model runs, and in which precision."""

from __future__ import annotations

import torch


def pick_device(num_gpus: int | None) -> torch.device:
    """The first GPU, unless there is none or the config says 0."""
    return torch.device("cuda" if num_gpus != 0 and torch.cuda.is_available() else "cpu")


def pick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes it fast, else float32."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
