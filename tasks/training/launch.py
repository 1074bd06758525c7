"""Training, as its caller sees it: data files and a model go in, a published adapter comes out.

The work is done by a process of its own (`sft.py`): a crash there is an error here, and GPU memory is free afterwards.
Its checkpoints lie beside the output in `.<output>.work-<key>/`. The key is the content of data, model and config: the
same call resumes them, and no other call ever does. The folder goes away when the adapter is published.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pydantic import TypeAdapter

from tasks.engines.config import ModelConfig
from tasks.engines.model_files import STARTER, model_fingerprint, resolve_model
from tasks.engines.openmp import as_given
from tasks.rollout.artifact import Ref, content_hash, publish_file
from tasks.training.config import TrainConfig
from tasks.training.gate.audit import Audit
from tasks.training.job import (
    JOB_FILE,
    LOG_FILE,
    OUTCOME_FILE,
    PROGRESS_FILE,
    Job,
    Logged,
    Outcome,
    ProgressLine,
    TrainCounts,
    TrainEvent,
)
from tasks.training.lora import with_form_of_init
from tasks.training.processes.ranks import RANK_VARIABLES

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_DYING_S = 2.0
"""How long a training process that was just killed may still hold its lock."""
_SAVING_S = 25.0
"""How long a training that is told to end may take for it. Prefect's workers kill what takes 30 s."""
_LOG_TAIL_LINES = 15
_NOT_OF_THE_WEIGHTS = {
    "data_path",
    "output_dir",
    "dry_run",
    "num_gpus",
    "accelerate_config",
    "checkpoint_every_min",
    "keep_checkpoints",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "report_to",
    "init_adapter",  # what it holds counts, not where it is
}
"""Settings that may differ when a training is resumed."""
_LINE: TypeAdapter[TrainEvent | Logged] = TypeAdapter(ProgressLine)
_REPOSITORY = Path(__file__).parents[2]


class TrainingError(RuntimeError):
    """The training process failed. What it had done so far is kept, and the same call resumes it."""


class TrainingRefusedError(ValueError):
    """The data, the config or the output folder cannot be trained with; the same call will not do better."""


class AdapterRef(Ref):
    """A published model folder: a LoRA adapter or, with use_lora=false, a whole model."""

    counts: TrainCounts
    base_fingerprint: str
    """`model_fingerprint` of the model that was trained."""
    audit: Audit | None = None
    """What was looked at before the first step."""


def train_key(data: Sequence[Path], model: ModelConfig, config: TrainConfig) -> str:
    """Hash of all that decides the weights: what the files hold, never where they are."""
    config = with_form_of_init(config)
    identity: dict[str, Any] = {
        "data": [content_hash(path) for path in data],
        "model": model_fingerprint(model),
        "config": config.model_dump(mode="json", exclude=_NOT_OF_THE_WEIGHTS),
        "rows_per_step": config.rows_per_step,
    }
    if config.init_adapter is not None:
        identity["init_adapter"] = content_hash(config.init_adapter)
    weights = [config.weight(path) for path in data]
    if any(weight != 1 for weight in weights):
        identity["weights"] = weights
    if model.chat_template_args:
        identity["chat_template_args"] = model.chat_template_args
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def check_writable(output_dir: Path) -> None:
    """See, before anything is collected, that a model folder can be published there.

    Raises:
        TrainingRefusedError: it cannot, or it would replace something that no training made.
    """
    output_dir = output_dir.expanduser().absolute()
    output_dir = output_dir.resolve() if output_dir.is_symlink() else output_dir
    if output_dir.exists() and not output_dir.is_dir():
        raise TrainingRefusedError(f"train.output_dir: {output_dir} is a file; name a folder")
    if inside := sorted(path.parent.name for path in output_dir.glob("*/training_args.bin")):
        raise TrainingRefusedError(
            f"train.output_dir: {output_dir} holds trained models ({', '.join(inside)}), and publishing would replace "
            "them; name another folder"
        )
    if output_dir.is_dir() and any(output_dir.iterdir()) and not (output_dir / "training_args.bin").is_file():
        raise TrainingRefusedError(
            f"train.output_dir: {output_dir} holds files that no training wrote, and publishing would replace them; "
            "name another folder"
        )
    parent = next(folder for folder in output_dir.parents if folder.exists())
    try:
        Path(tempfile.mkdtemp(prefix=".winnow-", dir=parent)).rmdir()
    except OSError as error:
        raise TrainingRefusedError(
            f"train.output_dir: cannot write {output_dir}: {error.strerror} in {parent}; name another folder"
        ) from None


def train_adapter(
    data: Sequence[Path],
    model: ModelConfig,
    config: TrainConfig,
    output_dir: Path,
    run_config: str,
    on_progress: Callable[[TrainEvent], None],
) -> AdapterRef:
    """Fine-tune `model` on data files and publish the result as `output_dir`.

    A call that was interrupted, however it was, is resumed from its last checkpoint by the same call.

    Args:
        run_config: the resolved config of the run as YAML, kept beside the weights.
        on_progress: told of each step, and of what happens between steps, in this thread.

    Raises:
        AdapterFormError: the adapter that it should go on from is not there, or has another form.
        TrainingRefusedError: data, config or output folder are not fit to train with.
        TrainingError: the process failed, or another one trains the same.
    """
    check_writable(output_dir)
    config = with_form_of_init(config)
    output_dir = output_dir.expanduser().absolute()
    work_dir = output_dir.with_name(f".{output_dir.name}.work-{train_key(data, model, config)}")
    with _one_at_a_time(work_dir) as lock:
        model_folder = resolve_model(model)
        is_folder = model.path == STARTER or Path(model.path).expanduser().is_dir()
        job = Job(
            data=[path.absolute() for path in data],
            model_folder=model_folder,
            model_name=str(model_folder) if is_folder else model.path,
            trust_remote_code=model.trust_remote_code,
            chat_template_args=model.chat_template_args,
            config=config,
            output_dir=output_dir,
            work_dir=work_dir,
            run_config=run_config,
            parent_pid=os.getpid(),
        )
        counts = _train(job, lock, on_progress)
        ref = AdapterRef(
            path=output_dir, sha256=content_hash(output_dir), counts=counts, base_fingerprint=model_fingerprint(model)
        )
        shutil.rmtree(work_dir)
    return ref


def _train(job: Job, lock: int, on_progress: Callable[[TrainEvent], None]) -> TrainCounts:
    outcome = _run_process(job, lock, on_progress)
    if outcome.kind == "done" and outcome.counts is not None:
        return outcome.counts
    raise (TrainingRefusedError if outcome.kind == "refused" else TrainingError)(outcome.message)


def _run_process(job: Job, lock: int, on_progress: Callable[[TrainEvent], None]) -> Outcome:
    """One training process from start to end. It is gone when this returns or raises, whatever happened.

    It also dies with the thread that runs this, by the kernel's hand.
    """
    outcome_path = job.work_dir / OUTCOME_FILE
    outcome_path.unlink(missing_ok=True)
    progress_path = job.work_dir / PROGRESS_FILE
    progress_path.write_text("")
    with publish_file(job.work_dir / JOB_FILE) as tmp:
        tmp.write_text(job.model_dump_json())
    log_path = job.work_dir / LOG_FILE
    with log_path.open("wb") as log, progress_path.open(encoding="utf-8") as progress:
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.training.sft", str(job.work_dir / JOB_FILE)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
            pass_fds=[lock],  # the lock lasts as long as either process: a dying one still writes
        )
        try:
            with _sigterm_unwinds():
                while process.poll() is None:
                    _report(progress, on_progress)
                    time.sleep(_POLL_S)
                _report(progress, on_progress)
        finally:
            _end(process)
    if outcome_path.exists():
        return Outcome.model_validate_json(outcome_path.read_text())
    return Outcome(kind="failed", message=_failure(process.returncode, log_path))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have a training that is not at its end save what it has and end, or kill it when that takes too long.

    The ranks of several GPUs are not of its process group: the kernel kills them when it is gone.
    """
    try:
        if process.poll() is None:
            logger.warning("the training is told to end; it saves a checkpoint first (for at most %.0f s)", _SAVING_S)
            process.terminate()
            process.wait(_SAVING_S)
            logger.warning("the training has ended; the same command goes on with it")
    except subprocess.TimeoutExpired:
        logger.warning("the training did not end in time and is killed; the same command resumes its last checkpoint")
    finally:  # also when it is interrupted once more
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Where SIGTERM would end this process on the spot, let it leave through the `finally`s first."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield  # Prefect, or whoever else runs this, sees to it
        return

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _report(progress: TextIO, on_progress: Callable[[TrainEvent], None]) -> None:
    """Pass on what has been written since the last time. A line without its end comes next time."""
    while True:
        here = progress.tell()
        line = progress.readline()
        if not line.endswith("\n"):
            progress.seek(here)
            return
        event = _LINE.validate_json(line)
        if isinstance(event, Logged):
            logging.getLogger(event.logger).log(event.level, "%s", event.message)
        else:
            on_progress(event)


def _environment() -> dict[str, str]:
    """The child's environment: it must find this package wherever it is started, and sends nothing to a hub."""
    path = os.pathsep.join(filter(None, [str(_REPOSITORY), os.environ.get("PYTHONPATH")]))
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    own = {name: value for name, value in as_given(os.environ).items() if name not in RANK_VARIABLES}
    return {**own, **quiet, "PYTHONPATH": path}


def _failure(returncode: int, log_path: Path) -> str:
    """What can be said of a process that ended without a word."""
    how = f"was killed by signal {-returncode}" if returncode < 0 else f"ended with exit code {returncode}"
    tail = log_path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    said = "\n".join(["; the end of its log:", *tail]) if tail else ""
    return f"the training process {how}; run the same command again to resume it (log: {log_path}){said}"


@contextmanager
def _one_at_a_time(work_dir: Path) -> Iterator[int]:
    """Hold the work folder's lock, a file descriptor that may be handed to the training process.

    Raises:
        TrainingError: another training holds it.
    """
    give_up = time.monotonic() + _DYING_S
    while True:
        work_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(work_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if _is_locked(lock, work_dir / "lock"):
                yield lock
                return
        finally:
            os.close(lock)
        if time.monotonic() > give_up:
            raise TrainingError(
                f"another process is training the same adapter (it holds {work_dir}/lock); wait for it to end"
            )
        time.sleep(_POLL_S)


def _is_locked(lock: int, path: Path) -> bool:
    """Try to lock an open file that must still be the one at `path`: whoever had it may have removed it since."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
