"""Training processes that are interrupted and started again, as tests want it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from safetensors.torch import load_file

from tasks.training.checkpoints import WRITING
from tasks.training.config import TrainConfig
from tasks.training.job import CHECKPOINTS, JOB_FILE, OUTCOME_FILE, PROGRESS_FILE, Job, Outcome

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
    job = Job(
        data=[data],
        model_folder=model,
        model_name="owner/name",
        trust_remote_code=False,
        chat_template_args={},
        config=config,
        output_dir=folder / "out",
        work_dir=work,
        run_config="",
        parent_pid=0,
    )
    (work / JOB_FILE).write_text(job.model_dump_json())
    return job


class Run:
    """The training processes of one job, one after the other."""

    def __init__(self, server: ForkServerContext, job: Job) -> None:
        self._server = server
        self.job = job
        self.losses: dict[int, float] = {}
        """By step; what was trained twice counts as it was the last time."""

    @property
    def checkpoints(self) -> Path:
        return self.job.work_dir / CHECKPOINTS

    def newest_step(self) -> int:
        return max((int(path.name.rpartition("-")[2]) for path in self.checkpoints.glob("checkpoint-*")), default=0)

    def is_writing(self) -> bool:
        return any((self.checkpoints / WRITING).glob("checkpoint-*"))

    def has_trained(self, steps: int) -> Callable[[], bool]:
        return lambda: any(event.get("step", 0) >= steps for event in self._events() if event["kind"] == "step")

    def until(self, when: Callable[[], bool], then: Callable[[int], None]) -> int:
        """Start a process, do something to it at a moment, and wait for its end. Returns its exit code."""
        process = self._start()
        while not when():
            assert process.is_alive(), (process.exitcode, self._outcome_text())
            time.sleep(0.0005)
        assert process.pid is not None
        then(process.pid)
        return self._end(process)

    def to_its_end(self) -> Outcome:
        self._end(self._start())
        return self.outcome()

    def outcome(self) -> Outcome:
        return Outcome.model_validate_json(self._outcome_text())

    def events(self, kind: str) -> list[dict[str, object]]:
        return [event for event in self._events() if event["kind"] == kind]

    def _start(self) -> ForkServerProcess:
        (self.job.work_dir / PROGRESS_FILE).write_text("")
        (self.job.work_dir / OUTCOME_FILE).unlink(missing_ok=True)
        process = self._server.Process(target=train, args=(self.job.work_dir / JOB_FILE,))
        process.start()
        return process

    def _end(self, process: ForkServerProcess) -> int:
        process.join(60)
        assert process.exitcode is not None
        self.losses |= {int(str(e["step"])): float(str(e["loss"])) for e in self.events("step")}
        return process.exitcode

    def _events(self) -> list[dict[str, object]]:
        text = (self.job.work_dir / PROGRESS_FILE).read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def _outcome_text(self) -> str:
        path = self.job.work_dir / OUTCOME_FILE
        return path.read_text() if path.exists() else ""


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def adapter(job: Job) -> dict[str, object]:
    """The published weights, as numbers."""
    return {name: value.tolist() for name, value in load_file(job.output_dir / "adapter_model.safetensors").items()}
