"""Jobs on the tiny model, and adapters for it, without a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tasks.training.config import TrainConfig
from tasks.training.job import Job
from tasks.training.lora import load_model


def plain_job(
    model: Path, data: Path, config: TrainConfig, output_dir: Path, work_dir: Path, parent_pid: int, **facts: Any
) -> Job:
    """A job on one file of data. `facts`: what else it should say than that the model is a hub's."""
    usual = {"model_name": "owner/name", "trust_remote_code": False, "chat_template_args": {}, "run_config": ""}
    return Job(
        data=[data],
        model_folder=model,
        config=config,
        output_dir=output_dir,
        work_dir=work_dir,
        parent_pid=parent_pid,
        **{**usual, **facts},
    )


def job_of(model: Path, folder: Path, **train: Any) -> Job:
    """A job that works in `folder` and would publish to `folder/out`."""
    config = TrainConfig.model_validate({"lora_r": 4, "lora_alpha": 8, **train})
    work_dir = folder / "out-work-abc123"
    return plain_job(model, folder / "data.jsonl", config, folder / "out", work_dir, 1, model_name=str(model))


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
