"""Training processes that are interrupted and started again, as tests want it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Protocol

from safetensors.torch import load_file
from torch import Tensor

from tasks.training.checkpoints.folder import WRITING
from tasks.training.config import TrainConfig
from tasks.training.job import CHECKPOINTS, JOB_FILE, LOG_FILE, OUTCOME_FILE, PROGRESS_FILE, Job, Outcome
from tests.tasks.training.jobs import plain_job

REPOSITORY = Path(__file__).parents[3]

CONFIG = TrainConfig(
    learning_rate=1e-2,
    num_train_epochs=2,
    gradient_accumulation_steps=1,
    max_length=100,
    lora_r=8,
    num_gpus=0,
    checkpoint_every_min=1e-6,  # after each step
)
STEPS = 24


def train(job_file: Path) -> None:
    """What `python -m tasks.training.sft` does, in a process that has imported everything already."""
    import torch

    from tasks.training.sft import main

    torch.set_num_threads(1)  # or sums come in another order each time
    job = Job.model_validate_json(job_file.read_text())
    job_file.write_text(job.model_copy(update={"parent_pid": os.getppid()}).model_dump_json())
    raise SystemExit(main(job_file))


def make_job(folder: Path, model: Path, config: TrainConfig = CONFIG) -> Job:
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    data = folder / "data.jsonl"
    with data.open("w") as file:
        for i in range(24):
            chat = [{"role": "user", "content": f"What is {i} + 30?"}, {"role": "assistant", "content": str(i + 30)}]
            file.write(json.dumps({"messages": chat, "metadata": {"agent_name": "solver"}}) + "\n")
    job = plain_job(model, data, config, folder / "out", work, parent_pid=0)
    (work / JOB_FILE).write_text(job.model_dump_json())
    return job


class Process(Protocol):
    """A training process that was started."""

    pid: int

    def has_ended(self) -> bool: ...

    def wait(self, timeout_s: float) -> int:
        """Its exit code; negative: the signal that killed it."""
        ...


class Forked:
    """A process that need not import anything: a copy of one that has."""

    def __init__(self, server: ForkServerContext, job: Job) -> None:
        self._process = server.Process(target=train, args=(job.work_dir / JOB_FILE,))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def has_ended(self) -> bool:
        return not self._process.is_alive()

    def wait(self, timeout_s: float) -> int:
        self._process.join(timeout_s)
        assert self._process.exitcode is not None
        return self._process.exitcode


class Started:
    """A process as the product starts it, with its log beside the job."""

    def __init__(self, job: Job) -> None:
        job_file = job.work_dir / JOB_FILE
        job_file.write_text(job.model_copy(update={"parent_pid": os.getpid()}).model_dump_json())
        with (job.work_dir / LOG_FILE).open("wb") as log:
            command = [sys.executable, "-m", "tasks.training.sft", str(job_file)]
            self._process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
        self.pid = self._process.pid

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self, timeout_s: float) -> int:
        return self._process.wait(timeout_s)


class Run:
    """The training processes of one job, one after the other."""

    def __init__(self, start: Callable[[Job], Process], job: Job) -> None:
        self._start_process = start
        self.job = job
        self.losses: dict[int, float] = {}
        """By step; what was trained twice counts as it was the last time."""

    @property
    def checkpoints(self) -> Path:
        return self.job.work_dir / CHECKPOINTS

    def newest_step(self) -> int:
        return max((int(path.name.rpartition("-")[2]) for path in self.checkpoints.glob("checkpoint-*")), default=0)

    def is_writing(self) -> bool:
        with suppress(FileNotFoundError):  # it may go while it is looked into
            return any((self.checkpoints / WRITING).glob("checkpoint-*"))
        return False

    def has_trained(self, steps: int) -> Callable[[], bool]:
        return lambda: any(int(str(event["step"])) >= steps for event in self.events("step"))

    def until(self, when: Callable[[], bool], then: Callable[[int], None]) -> int:
        """Start a process, do something to it at a moment, and wait for its end. Returns its exit code."""
        process = self._start()
        while not when():
            assert not process.has_ended(), self._outcome_text()
            time.sleep(0.0005)
        then(process.pid)
        return self._end(process)

    def to_its_end(self) -> Outcome:
        self._end(self._start())
        return self.outcome()

    def outcome(self) -> Outcome:
        return Outcome.model_validate_json(self._outcome_text())

    def events(self, kind: str) -> list[dict[str, object]]:
        return [event for event in events(self.job) if event["kind"] == kind]

    def _start(self) -> Process:
        (self.job.work_dir / PROGRESS_FILE).write_text("")
        (self.job.work_dir / OUTCOME_FILE).unlink(missing_ok=True)
        return self._start_process(self.job)

    def _end(self, process: Process) -> int:
        code = process.wait(60)
        self.losses |= losses(self.job)
        return code

    def _outcome_text(self) -> str:
        path = self.job.work_dir / OUTCOME_FILE
        return path.read_text() if path.exists() else ""


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def events(job: Job) -> list[dict[str, object]]:
    """What a process has told since it was started."""
    text = (job.work_dir / PROGRESS_FILE).read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def losses(job: Job) -> dict[int, float]:
    """By step, of the process that was started last."""
    return {int(str(e["step"])): float(str(e["loss"])) for e in events(job) if e["kind"] == "step"}


def adapter(job: Job) -> dict[str, Tensor]:
    """The published weights."""
    return dict(load_file(job.output_dir / "adapter_model.safetensors"))
