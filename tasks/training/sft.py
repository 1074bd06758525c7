"""The training process: `python -m tasks.training.sft WORK_DIR/job.json`, started by `launch.py`.

Comes in: a `Job`. Goes out: progress.jsonl while it trains, the model folder, and outcome.json with how it ended. A run
that finds checkpoints in its work folder goes on from the last whole one. It dies with the process that started it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.training.config import TrainConfig
from tasks.training.job import BEST_WEIGHTS, CHECKPOINTS, OUTCOME_FILE, Job, Outcome, TrainCounts

if TYPE_CHECKING:
    from tasks.training.audit import Audit
    from tasks.training.log import Entry
    from tasks.training.step_trainer import StepTrainer

_PR_SET_PDEATHSIG = 1


def main(job_path: Path) -> int:
    """Run one job. The exit code says only whether it is done; why not is in outcome.json or the log."""
    job = Job.model_validate_json(job_path.read_text())
    is_rank = "LOCAL_RANK" in os.environ
    _die_with_parent(None if is_rank else job.parent_pid)
    if not is_rank:
        _use_gpus(job, job_path)
    outcome = run_job(job)
    if os.environ.get("RANK", "0") == "0" or outcome.kind != "done":
        (job.work_dir / OUTCOME_FILE).write_text(outcome.model_dump_json())
    if outcome.message:
        print(outcome.message, file=sys.stderr)
    return 0 if outcome.kind == "done" else 1


def _die_with_parent(parent_pid: int | None) -> None:
    """Have the kernel kill this process when its parent ends, kill -9 included. It holds across exec."""
    before = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != before or (parent_pid is not None and before != parent_pid):
        os._exit(1)  # it had ended before the kernel was told


def _use_gpus(job: Job, job_path: Path) -> None:
    """Show this process the GPUs that it may use; for several, become accelerate's launcher of one process each."""
    import torch

    visible = torch.cuda.device_count()
    wanted = visible if job.config.num_gpus is None else min(job.config.num_gpus, visible)
    if wanted == visible <= 1:
        return
    ids = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(visible)))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(ids.split(",")[:wanted])
    if wanted > 1:
        launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]
        launch += ["--dynamo_backend", "no", "--num_processes", str(wanted), "--main_process_port", "0"]
        os.execv(sys.executable, [sys.executable, *launch, "--module", "tasks.training.sft", str(job_path)])


def run_job(job: Job) -> Outcome:
    """Train and publish in this process. Unforeseen errors are raised, and end in the log."""
    import torch

    from tasks.dataset.rows import DataFileError
    from tasks.engines.chat_tokens import TemplateArgsError
    from tasks.training.lora import AdapterFormError
    from tasks.training.proof import UnusableWeightsError
    from tasks.training.split import TooFewProblemsError
    from tasks.training.step_trainer import NoMemoryLeftError
    from tasks.training.token_data import NothingToTrainError

    try:
        return Outcome(kind="done", counts=_train(job))
    except (torch.OutOfMemoryError, NoMemoryLeftError) as error:
        return Outcome(kind="out_of_memory", message=_too_large(error, job.config))
    except (DataFileError, NothingToTrainError, TooFewProblemsError, TemplateArgsError, AdapterFormError) as error:
        return Outcome(kind="refused", message=str(error))
    except UnusableWeightsError as error:
        return Outcome(kind="failed", message=str(error))


def _too_large(error: Exception, config: TrainConfig) -> str:
    """What is left to try when the least has been tried at once."""
    checkpointing = "set" if config.gradient_checkpointing is False else "keep"
    return (
        f"{str(error).splitlines()[0]}; lower train.max_length (now {config.max_length}) or train.lora_r (now "
        f"{config.lora_r}), {checkpointing} train.gradient_checkpointing=true, or take a smaller model"
    )


def _train(job: Job) -> TrainCounts:
    from transformers import AutoTokenizer

    from tasks.engines.chat_tokens import check_template_args, end_of_turn_id
    from tasks.engines.policies import quiet_transformers
    from tasks.training.audit import audit
    from tasks.training.log import entries
    from tasks.training.publish import publish_model
    from tasks.training.token_data import token_data
    from tasks.training.token_rows import TokenRows
    from tasks.training.trainer import last_checkpoint, make_trainer
    from tasks.training.validation import BestWeights

    quiet_transformers()
    tokenizer = AutoTokenizer.from_pretrained(job.model_folder, trust_remote_code=job.trust_remote_code)
    check_template_args(tokenizer, job.chat_template_args)
    tokens = token_data(job.data, job.model_folder, tokenizer, job.chat_template_args, job.config)
    end = end_of_turn_id(tokenizer, job.chat_template_args)
    found, split = audit(tokens, job.data, tokenizer, end, job.config)
    rows = TokenRows(tokens, job.data, split.training)
    validation = TokenRows(tokens, job.data, split.validation) if len(split.validation) else None
    best = BestWeights(job.work_dir / BEST_WEIGHTS) if job.config.load_best_model_at_end else None
    trainer = make_trainer(job, tokenizer, rows, validation, best)
    trainer.train(resume_from_checkpoint=last_checkpoint(job.work_dir / CHECKPOINTS))
    published_step = trainer.state.global_step
    if best is not None and best.point is not None and best.point.step != published_step:
        best.restore(trainer.model)
        published_step = best.point.step
    log = entries(trainer.state.log_history)
    counts = _counts(job, found, trainer, log, published_step)
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        publish_model(job, model, trainer.processing_class, trainer.args, found, counts, log)
    return counts


def _counts(job: Job, found: Audit, trainer: StepTrainer, log: Sequence[Entry], published_step: int) -> TrainCounts:
    from tasks.training.log import tokens_per_second, validation_losses
    from tasks.training.lora import form

    losses = [entry["loss"] for entry in log if "loss" in entry]
    return TrainCounts(
        rows=found.rows,
        dropped_overlong=found.dropped_overlong,
        trained_tokens=found.trained_tokens,
        steps=trainer.state.global_step,
        first_loss=losses[0],
        last_loss=losses[-1],
        tokens_per_second=tokens_per_second(log),
        form=form(job.config),
        validation=validation_losses(log, published_step),
        out_of_memory=trainer.out_of_memory,
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
