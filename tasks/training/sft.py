"""The training process: `python -m tasks.training.sft WORK_DIR/job.json`, started by `launch.py`.

Comes in: a `Job`. Goes out: progress.jsonl while it trains, the model folder, and outcome.json with how it ended. A run
that finds checkpoints in its work folder goes on from the last whole one. It dies with the process that started it.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.engines.openmp import keep_cores
from tasks.rollout.artifact import publish_file
from tasks.training.config import TrainConfig
from tasks.training.job import BEST_WEIGHTS, OUTCOME_FILE, Job, Logged, Outcome, TrainCounts, append_progress
from tasks.training.processes.ranks import become_ranks, die_with_parent, rank
from tasks.training.processes.stopping import StopSignal, TrainingStopped

if TYPE_CHECKING:
    from tasks.training.gate.audit import Audit
    from tasks.training.progress.log import Entry
    from tasks.training.steps.step_trainer import StepTrainer

logger = logging.getLogger("tasks.training.sft")  # it runs as __main__


def main(job_path: Path) -> int:
    """Run one job. The exit code says only whether it is done; why not is in outcome.json or the log."""
    job = Job.model_validate_json(job_path.read_text())
    die_with_parent(job.parent_pid)
    stop = StopSignal()
    try:
        stop.heed()
        return _main(job, job_path, stop)
    except TrainingStopped as stopped:
        _write(Outcome(kind="stopped", message=str(stopped)), job)
        return 1


def _main(job: Job, job_path: Path, stop: StopSignal) -> int:
    if rank() is None:
        ended = become_ranks(job.config, job.work_dir, [str(job_path)])
        if ended is not None:
            return _end_of_ranks(ended, job)
    if rank() in (None, 0):
        logging.getLogger("tasks").addHandler(_ToParent(job))
        logging.getLogger("tasks").setLevel(logging.INFO)
    outcome = run_job(job, stop)
    if rank() in (None, 0) or outcome.kind != "done":
        _write(outcome, job)
    return 0 if outcome.kind == "done" else 1


class _ToParent(logging.Handler):
    """Leaves it to the parent, which knows the run, where records go."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def emit(self, record: logging.LogRecord) -> None:
        line = Logged(logger=record.name, level=record.levelno, message=record.getMessage())
        try:
            append_progress(self._job, line)
        except OSError:  # a full disk ends the training where that has something to say
            self.handleError(record)


def _end_of_ranks(ended: str, job: Job) -> int:
    """What the ranks have not said themselves."""
    if ended and not (job.work_dir / OUTCOME_FILE).exists():
        _write(
            Outcome(kind="failed", message=f"the training ended: {ended}; run the same command again to resume it"), job
        )
    return 1 if ended else 0


def _write(outcome: Outcome, job: Job) -> None:
    """The first of several processes says how it ended: what the others meet is what comes of it."""
    if outcome.message:
        print(outcome.message, file=sys.stderr)
    path = job.work_dir / OUTCOME_FILE
    if not path.exists():
        with publish_file(path) as tmp:
            tmp.write_text(outcome.model_dump_json())


def run_job(job: Job, stop: StopSignal | None = None) -> Outcome:
    """Train and publish in this process. Unforeseen errors are raised, and end in the log.

    Raises:
        TrainingStopped: the process was told to end.
    """
    if rank() is None:  # several share the cores
        keep_cores()

    import torch
    from safetensors import SafetensorError

    from tasks.dataset.rows import DataFileError
    from tasks.engines.chat_tokens import TemplateArgsError
    from tasks.training.checkpoints.folder import CheckpointError, is_disk_full
    from tasks.training.lora import AdapterFormError
    from tasks.training.model_folder.proof import UnusableWeightsError
    from tasks.training.rows.split import TooFewProblemsError
    from tasks.training.rows.token_data import NothingToTrainError
    from tasks.training.steps.step_trainer import DivergedError, NoMemoryLeftError

    try:
        return Outcome(kind="done", counts=_train(job, stop))
    except (torch.OutOfMemoryError, NoMemoryLeftError) as error:
        return Outcome(kind="out_of_memory", message=_too_large(error, job.config))
    except (DataFileError, NothingToTrainError, TooFewProblemsError, TemplateArgsError, AdapterFormError) as error:
        return Outcome(kind="refused", message=str(error))
    except (DivergedError, UnusableWeightsError, CheckpointError) as error:
        return Outcome(kind="failed", message=str(error))
    except (OSError, RuntimeError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        return Outcome(kind="failed", message=_no_room(job))


def _no_room(job: Job) -> str:
    free = shutil.disk_usage(job.work_dir).free
    return (
        f"no space left in {job.output_dir.parent} ({free / 1e6:.1f} MB are free); what was learnt until the last "
        "checkpoint is kept: make room and run the same command again"
    )


def _too_large(error: Exception, config: TrainConfig) -> str:
    """What is left to try when the least has been tried at once."""
    checkpointing = "set" if config.gradient_checkpointing is False else "keep"
    return (
        f"{str(error).splitlines()[0]}; lower train.max_length (now {config.max_length}) or train.lora_r (now "
        f"{config.lora_r}), {checkpointing} train.gradient_checkpointing=true, or take a smaller model"
    )


def _train(job: Job, stop: StopSignal | None) -> TrainCounts:
    from transformers import AutoTokenizer

    from tasks.engines.chat_tokens import check_template_args, end_of_turn_id
    from tasks.engines.model_files import quiet_transformers
    from tasks.training.gate.audit import audit
    from tasks.training.progress.log import entries
    from tasks.training.rows.token_data import token_data
    from tasks.training.rows.token_rows import TokenRows
    from tasks.training.steps.trainer import make_trainer, trained_model
    from tasks.training.steps.validation import BestWeights

    quiet_transformers()
    tokenizer = AutoTokenizer.from_pretrained(job.model_folder, trust_remote_code=job.trust_remote_code)
    check_template_args(tokenizer, job.chat_template_args)
    tokens = token_data(job.data, job.model_folder, tokenizer, job.chat_template_args, job.config)
    end = end_of_turn_id(tokenizer, job.chat_template_args)
    found, split = audit(tokens, job.data, tokenizer, end, job.config)
    logger.info("%d rows are trained on, %d of their tokens with a loss", found.rows, found.trained_tokens)
    rows = TokenRows(tokens, job.data, split.training)
    validation = TokenRows(tokens, job.data, split.validation) if len(split.validation) else None
    best = BestWeights(job.work_dir / BEST_WEIGHTS) if job.config.load_best_model_at_end else None
    trainer = make_trainer(job, tokenizer, rows, validation, best, stop)
    trainer.train_from_newest()
    _give_memory_back()
    published_step = trainer.state.global_step
    if best is not None and best.point is not None and best.point.step != published_step:
        best.restore(trainer.model)
        published_step = best.point.step
    log = entries(trainer.state.log_history)
    counts = _counts(job, found, trainer, log, published_step)
    model = trained_model(trainer, job)
    if trainer.is_world_process_zero():
        from tasks.training.model_folder.publish import publish_model  # and matplotlib: not while memory is needed

        publish_model(job, model, trainer.processing_class, trainer.args, found, counts, log)
    return counts


def _give_memory_back() -> None:
    """Let the system have what the steps took: publishing takes other memory, and glibc keeps free pages for long."""
    gc.collect()
    with suppress(AttributeError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


def _counts(job: Job, found: Audit, trainer: StepTrainer, log: Sequence[Entry], published_step: int) -> TrainCounts:
    from tasks.training.lora import form
    from tasks.training.progress.log import tokens_per_second, validation_losses

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
