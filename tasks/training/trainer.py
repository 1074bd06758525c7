"""The trainer of one job: its model, its arguments, its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from transformers import TrainerCallback, TrainingArguments

from tasks.engines.policies import pick_device, pick_dtype
from tasks.training.config import TrainConfig
from tasks.training.job import CHECKPOINTS, PROGRESS_FILE, TRAIN_LOG, Job, TrainProgress
from tasks.training.log import TrainLog
from tasks.training.lora import load_model
from tasks.training.step_trainer import StepTrainer
from tasks.training.steps import StepPlan
from tasks.training.token_rows import TokenRows
from tasks.training.trackers import open_trackers
from tasks.training.validation import BestWeights, Validation

_CHECKPOINT_SHARE = 0.1
"""A checkpoint after each such share of the steps: what a crash costs at most."""


def make_trainer(
    job: Job, tokenizer: Any, rows: TokenRows, validation: TokenRows | None, best: BestWeights | None
) -> StepTrainer:
    """The trainer of a job, ready to start or to resume.

    Args:
        validation: rows whose loss is looked at; None: there are none.
        best: keeps the weights with the least loss on them, if they are wanted.
    """
    device = pick_device(job.config.num_gpus)
    dtype = pick_dtype(device)
    arguments = _arguments(job.config, job.work_dir / CHECKPOINTS, device, dtype)
    progress = _ProgressFile(job.work_dir / PROGRESS_FILE)
    plan = StepPlan(
        num_rows=len(rows),
        rows_per_step=rows_per_device(job.config) * arguments.world_size,
        num_epochs=job.config.num_train_epochs,
        seed=job.config.seed,
    )
    trainer = StepTrainer(
        plan=plan,
        rows=rows,
        validation=validation,
        most_tokens=tokens_at_once(job.config, int(rows.lengths.max()), device),
        pad_id=tokenizer.pad_token_id or 0,
        on_out_of_memory=progress.write,
        model=load_model(job, dtype, device),
        args=arguments,
        processing_class=tokenizer,
        callbacks=[progress, TrainLog(job.work_dir / TRAIN_LOG, open_trackers(job))],
    )
    if validation is not None:
        trainer.add_callback(Validation(trainer, plan.steps_per_epoch, best))
    return trainer


def rows_per_device(config: TrainConfig) -> int:
    """Rows of a step for each device."""
    return config.per_device_train_batch_size * config.gradient_accumulation_steps


def tokens_at_once(config: TrainConfig, longest: int, device: torch.device) -> int:
    """Most tokens that a device reads at once.

    A GPU is only busy with many: as many as the longest rows that are allowed would have. A CPU is busy with few, and
    takes no more than the longest rows that there are.
    """
    return config.per_device_train_batch_size * (config.max_length if device.type == "cuda" else longest)


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end: the trainer's state is its last file."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _arguments(config: TrainConfig, folder: Path, device: torch.device, dtype: torch.dtype) -> TrainingArguments:
    on_gpu = device.type == "cuda"
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.num_train_epochs,
        per_device_train_batch_size=rows_per_device(
            config
        ),  # the trainer is given whole steps, and divides them itself
        gradient_accumulation_steps=1,
        learning_rate=config.learning_rate,
        seed=config.seed,
        use_cpu=not on_gpu,
        bf16=dtype == torch.bfloat16,
        gradient_checkpointing=on_gpu if config.gradient_checkpointing is None else config.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},  # works where the embeddings have no gradient
        save_strategy="steps",
        save_steps=_CHECKPOINT_SHARE,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


_LOGGED = ("loss", "learning_rate", "grad_norm", "tokens", "trained_tokens", "seconds")


class _ProgressFile(TrainerCallback):
    """Writes a line for each step and event."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        self.write(
            TrainProgress(
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=state.epoch,
                **{name: logs[name] for name in _LOGGED},
            )
        )

    def write(self, event: BaseModel) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(event.model_dump_json() + "\n")
