"""Several processes learn what one does, and none of them outlives the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tasks.training.config import TrainConfig
from tasks.training.job import CHECKPOINTS, JOB_FILE
from tasks.training.processes.accelerate_config import AccelerateConfigError
from tasks.training.processes.ranks import NoGpuError, num_processes
from tasks.training.sft import run_job
from tests.tasks.training.interrupting import CONFIG, REPOSITORY, Run, Started, adapter, kill, losses, make_job


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
        while len(ranks := ranks_of(launcher)) < 2:
            time.sleep(0.01)
        seen.extend(ranks)
        kill(launcher)

    assert run.until(run.has_trained(2), lambda pid: os.kill(pid, signal.SIGTERM)) == 1
    assert run.outcome().kind == "stopped" and run.newest_step() == max(run.losses)
    assert run.until(run.has_trained(5), kill_the_second) == 1
    assert "process 2 of 2 was killed by signal 9" in run.outcome().message
    assert run.until(lambda: True, kill_the_launcher) == -signal.SIGKILL
    assert len(seen) == 4
    psutil.wait_procs(seen, timeout=5)
    assert not [process for process in seen if process.is_running()]
    ended = run.to_its_end()
    assert run.events("resumed")
    assert run_job(alone).kind == ended.kind == "done"
    assert run.losses == pytest.approx(losses(alone), rel=1e-4)
    torch.testing.assert_close(adapter(run.job), adapter(alone), rtol=1e-4, atol=1e-4)


FSDP = """
distributed_type: FSDP
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_cpu_ram_efficient_loading: false
"""


def test_a_model_that_is_sharded_over_two_processes_learns_the_same_and_is_published_in_one_piece(
    tiny_model: Path, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"gradient_accumulation_steps": 4})
    alone, sharded = (
        make_job(tmp_path / "alone", tiny_model, config),
        make_job(tmp_path / "sharded", tiny_model, config),
    )
    settings = tmp_path / "fsdp.yaml"
    settings.write_text(FSDP)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(settings), "--num_machines", "1"]
    launch += ["--num_processes", "2", "--main_process_port", "0", "--module", "tests.tasks.training.fsdp_on_cpu"]
    launched = subprocess.run([*launch, str(sharded.work_dir / JOB_FILE)], cwd=REPOSITORY, capture_output=True)
    assert launched.returncode == 0, launched.stderr[-2000:]
    assert run_job(alone).kind == "done"
    assert losses(sharded) == pytest.approx(losses(alone), rel=1e-4)
    torch.testing.assert_close(adapter(sharded), adapter(alone), rtol=1e-3, atol=1e-3)
    (checkpoint, *_) = (sharded.work_dir / CHECKPOINTS).iterdir()
    assert list(checkpoint.glob("pytorch_model_fsdp*/*.distcp"))  # shards, not a whole model on each


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


def test_activations_are_computed_twice_by_one_of_the_two_that_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    path = tmp_path / "fsdp.yaml"
    path.write_text("distributed_type: FSDP\nfsdp_config: {fsdp_version: 2, fsdp_activation_checkpointing: true}\n")
    with pytest.raises(AccelerateConfigError, match=r"fsdp_activation_checkpointing, and one of them alone"):
        num_processes(TrainConfig(accelerate_config=path))
    assert num_processes(TrainConfig(accelerate_config=path, gradient_checkpointing=False)) == 2
