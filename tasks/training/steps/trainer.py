"""The trainer of one job: its model, its arguments, its steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

from tasks.engines.devices import pick_device, pick_dtype
from tasks.training.checkpoints.folder import Checkpoints
from tasks.training.checkpoints.schedule import CheckpointSchedule
from tasks.training.config import TrainConfig
from tasks.training.job import CHECKPOINTS, TRAIN_LOG, Job, TrainProgress, append_progress
from tasks.training.lora import load_model
from tasks.training.processes.stopping import StopSignal
from tasks.training.progress.log import STEP_FIGURES, TrainLog
from tasks.training.progress.trackers import open_trackers
from tasks.training.rows.token_rows import TokenRows
from tasks.training.steps.plan import StepPlan
from tasks.training.steps.step_trainer import StepTrainer
from tasks.training.steps.validation import BestWeights, Validation


def make_trainer(
    job: Job,
    tokenizer: Any,
    rows: TokenRows,
    validation: TokenRows | None = None,
    best: BestWeights | None = None,
    stop: StopSignal | None = None,
) -> StepTrainer:
    """The trainer of a job, ready to start or to resume.

    Args:
        validation: rows whose loss is looked at; None: there are none.
        best: keeps the weights with the least loss on them, if they are wanted.
        stop: ends it where it can be resumed.
    """
    device = pick_device(job.config.num_gpus)
    dtype = pick_dtype(device)
    checkpoints = Checkpoints(job.work_dir / CHECKPOINTS, job.config.keep_checkpoints)
    arguments = _arguments(job.config, checkpoints.folder, device, dtype)
    tell = partial(append_progress, job)
    plan = StepPlan(
        num_rows=len(rows),
        rows_per_step=job.config.rows_per_step,
        num_epochs=job.config.num_train_epochs,
        seed=job.config.seed,
    )
    trainer = StepTrainer(
        plan=plan,
        rows=rows,
        validation=validation,
        most_tokens=tokens_at_once(job.config, int(rows.lengths.max()), device),
        pad_id=tokenizer.pad_token_id or 0,
        on_out_of_memory=tell,
        checkpoints=checkpoints,
        schedule=CheckpointSchedule(job.config.checkpoint_every_min, stop or StopSignal()),
        on_resume=tell,
        model=load_model(job, dtype, device),
        args=arguments,
        processing_class=tokenizer,
        callbacks=[_TellSteps(tell), TrainLog(job.work_dir / TRAIN_LOG, open_trackers(job))],
    )
    if validation is not None:
        trainer.add_callback(Validation(trainer, plan.steps_per_epoch, best))
    return trainer


def trained_model(trainer: StepTrainer, job: Job) -> Any:
    """The trained model in one piece, in the first process; None in the others. All of them call it."""
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return trainer.accelerator.unwrap_model(trainer.model) if trainer.is_world_process_zero() else None
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return None
    device = pick_device(job.config.num_gpus)
    model = load_model(job, pick_dtype(device), device)
    model.load_state_dict(weights, strict=False)  # tied weights are there once
    return model


def tokens_at_once(config: TrainConfig, longest: int, device: torch.device) -> int:
    """Most tokens that a device reads at once.

    A GPU is only busy with many: as many as the longest rows that are allowed would have. A CPU is busy with few, and
    takes no more than the longest rows that there are.
    """
    return config.per_device_train_batch_size * (config.max_length if device.type == "cuda" else longest)


def _arguments(config: TrainConfig, folder: Path, device: torch.device, dtype: torch.dtype) -> TrainingArguments:
    on_gpu = device.type == "cuda"
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.num_train_epochs,
        per_device_train_batch_size=config.rows_per_step,  # the trainer is given whole steps, and divides them itself
        gradient_accumulation_steps=1,
        learning_rate=config.learning_rate,
        seed=config.seed,
        use_cpu=not on_gpu,
        bf16=dtype == torch.bfloat16,
        gradient_checkpointing=on_gpu if config.gradient_checkpointing is None else config.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},  # works where the embeddings have no gradient
        save_strategy="no",  # the schedule says when
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


class _TellSteps(TrainerCallback):
    """Tells of each step."""

    def __init__(self, tell: Callable[[TrainProgress], None]) -> None:
        self._tell = tell

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        self._tell(
            TrainProgress(
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=state.epoch,
                **{name: logs[name] for name in STEP_FIGURES},
            )
        )
