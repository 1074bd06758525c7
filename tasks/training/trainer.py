"""TRL's SFTTrainer, set up for one job."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from tasks.engines.devices import pick_device, pick_dtype
from tasks.training.job import CHECKPOINTS, PROGRESS_FILE, Job, TrainProgress
from tasks.training.publish import UnusableWeightsError

_CHECKPOINT_SHARE = 0.1
"""A checkpoint after each such share of the steps: what a crash costs at most."""


def make_trainer(job: Job, tokenizer: Any, rows: Dataset) -> Any:
    """The trainer of a job, ready to start or to resume. `rows`: input_ids and labels."""
    device = pick_device(job.config.num_gpus)
    dtype = pick_dtype(device)
    model = AutoModelForCausalLM.from_pretrained(
        job.model_folder,
        # All weights are trained in full precision; frozen ones under an adapter need not have it.
        dtype=dtype if job.config.use_lora else torch.float32,
        trust_remote_code=job.trust_remote_code,
    )
    return SFTTrainer(
        model=model,
        args=_arguments(job, device, dtype),
        train_dataset=rows.select_columns(["input_ids", "labels"]),
        processing_class=tokenizer,
        peft_config=_lora(job) if job.config.use_lora else None,
        callbacks=[_ProgressFile(job.work_dir / PROGRESS_FILE)],
    )


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end: the trainer's state is its last file."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _arguments(job: Job, device: torch.device, dtype: torch.dtype) -> Any:
    config = job.config
    on_gpu = device.type == "cuda"
    return SFTConfig(
        output_dir=str(job.work_dir / CHECKPOINTS),
        num_train_epochs=config.num_train_epochs,
        per_device_train_batch_size=config.per_device_train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        seed=config.seed,
        max_length=None,  # rows are measured before, and never cut
        dataset_kwargs={"skip_prepare_dataset": True},  # they are tokens and labels already
        use_cpu=not on_gpu,
        bf16=dtype == torch.bfloat16,
        gradient_checkpointing=on_gpu,  # saves GPU memory; a CPU has memory, and no time to compute things twice
        dataloader_pin_memory=on_gpu,
        save_strategy="steps",
        save_steps=_CHECKPOINT_SHARE,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


def _lora(job: Job) -> LoraConfig:
    return LoraConfig(
        r=job.config.lora_r,
        lora_alpha=job.config.lora_alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


class _ProgressFile(TrainerCallback):
    """Writes a line for each step, and ends a training whose loss is no number."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        progress = TrainProgress(
            step=state.global_step,
            total_steps=state.max_steps,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            tokens=int(logs["num_tokens"]),
        )
        if state.is_world_process_zero:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(progress.model_dump_json() + "\n")
        if not math.isfinite(progress.loss):
            raise UnusableWeightsError(
                f"the loss is {progress.loss} at step {progress.step} of {progress.total_steps}; nothing was "
                "published. Lower train.learning_rate."
            )
