"""Several processes learn what one does, and none of them outlives the others."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
import torch

from tasks.training.accelerate_config import AccelerateConfigError
from tasks.training.config import TrainConfig
from tasks.training.ranks import NoGpuError, num_processes
from tasks.training.sft import run_job
from tests.tasks.training.interrupting import CONFIG, Run, Started, adapter, kill, losses, make_job


@pytest.fixture
def two_processes(tmp_path: Path) -> Path:
    path = tmp_path / "two_processes.yaml"
    path.write_text("distributed_type: MULTI_CPU\nnum_processes: 2\nuse_cpu: true\n")
    return path


def ranks_of(launcher: int) -> list[psutil.Process]:
    """The processes that a launcher has started, in the order of their ranks."""
    ranks = [child for child in psutil.Process(launcher).children() if "RANK" in child.environ()]
    return sorted(ranks, key=lambda child: int(child.environ()["RANK"]))


def test_two_processes_that_were_interrupted_learn_what_one_learns_at_once(
    tiny_model: Path, tmp_path: Path, two_processes: Path
) -> None:
    alone = make_job(tmp_path / "alone", tiny_model, CONFIG.model_copy(update={"gradient_accumulation_steps": 2}))
    run = Run(
        Started,
        make_job(
            tmp_path / "two",
            tiny_model,
            CONFIG.model_copy(update={"accelerate_config": two_processes, "gradient_accumulation_steps": 2}),
        ),
    )
    seen: list[psutil.Process] = []

    def kill_the_second(launcher: int) -> None:
        seen.extend(ranks_of(launcher))
        kill(seen[1].pid)

    def kill_the_launcher(launcher: int) -> None:
        seen.extend(ranks_of(launcher))
        kill(launcher)

    assert run.until(run.has_trained(2), lambda pid: os.kill(pid, signal.SIGTERM)) == 1
    assert run.outcome().kind == "stopped" and run.newest_step() == max(run.losses)
    assert run.until(run.has_trained(5), kill_the_second) == 1
    assert "process 2 of 2 was killed by signal 9" in run.outcome().message
    assert run.until(run.has_trained(7), kill_the_launcher) == -signal.SIGKILL
    assert len(seen) == 4
    psutil.wait_procs(seen, timeout=5)
    assert not [process for process in seen if process.is_running()]
    ended = run.to_its_end()
    assert run.events("resumed")
    assert run_job(alone).kind == ended.kind == "done"
    assert run.losses == pytest.approx(losses(alone), rel=1e-4)
    torch.testing.assert_close(adapter(run.job), adapter(alone), rtol=1e-4, atol=1e-4)


def test_a_step_has_the_same_rows_however_many_processes_share_it(two_processes: Path, tmp_path: Path) -> None:
    assert num_processes(TrainConfig(accelerate_config=two_processes)) == 2
    assert num_processes(TrainConfig(accelerate_config=two_processes, num_gpus=1)) == 1
    few = TrainConfig(accelerate_config=two_processes, per_device_train_batch_size=1, gradient_accumulation_steps=1)
    assert num_processes(few) == 1  # one row cannot be shared


def test_gpus_that_are_not_here_are_named_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "fsdp.yaml"
    path.write_text("distributed_type: FSDP\nfsdp_config:\n  fsdp_version: 2\n")
    with pytest.raises(NoGpuError, match=f"{path} shards the model over GPUs, and none is used here"):
        num_processes(TrainConfig(accelerate_config=path, num_gpus=0))
    with pytest.raises(AccelerateConfigError, match="cannot read"):
        num_processes(TrainConfig(accelerate_config=tmp_path / "none.yaml"))
