"""Jobs on the tiny model, and adapters for it, without a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tasks.training.config import TrainConfig
from tasks.training.job import Job
from tasks.training.lora import load_model


def job_of(model: Path, folder: Path, **train: Any) -> Job:
    """A job that works in `folder` and would publish to `folder/out`."""
    return Job(
        data=[folder / "data.jsonl"],
        model_folder=model,
        model_name=str(model),
        trust_remote_code=False,
        chat_template_args={},
        config=TrainConfig.model_validate({"lora_r": 4, "lora_alpha": 8, **train}),
        output_dir=folder / "out",
        work_dir=folder / "out-work-abc123",
        run_config="",
        parent_pid=1,
    )


def adapted(job: Job, size: float = 0.1) -> Any:
    """The job's model with an adapter of its form whose B has random values of this size."""
    model = load_model(job, torch.float32, torch.device("cpu"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1.0).mul_(size)
    return model


def write_adapter(job: Job, folder: Path, size: float = 0.1) -> Path:
    """A folder with that adapter alone."""
    adapted(job, size).save_pretrained(folder, save_embedding_layers=False)
    return folder
