"""The processes of one training: which devices they use, how they are started, and that none outlives the others.

One device is used by the training process itself. For several it becomes accelerate's launcher of one process each, the
ranks: when one of them dies the launcher ends the others, and when the launcher dies the kernel kills them all.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from tasks.training.config import TrainConfig
from tasks.training.processes.accelerate_config import AccelerateConfig, AccelerateConfigError, read_accelerate_config

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What tells a process that it is one of several."""
_LAUNCHER = "WINNOW_LAUNCHER_PID"
_PR_SET_PDEATHSIG = 1
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""Ranks are all on this machine, whose own name may lead anywhere."""


class NoGpuError(ValueError):
    """A model is to be sharded over GPUs, and there is none."""


def rank() -> int | None:
    """Which of several processes this one is. None: it is the only one, or starts the others."""
    return int(os.environ["RANK"]) if _LAUNCHER in os.environ else None


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, kill -9 included.

    Args:
        parent_pid: what this process must be a child of, unless it is a rank, whose parent is the launcher.
    """
    expected = int(os.environ.get(_LAUNCHER, parent_pid))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != expected:
        os._exit(1)  # it had ended before the kernel was told


def num_processes(config: TrainConfig) -> int:
    """How many processes share a step on this machine: never more than it has rows.

    Raises:
        AccelerateConfigError: see `read_accelerate_config`; or it does not go with another setting.
        NoGpuError: the file is for GPUs, and there are none.
    """
    return _num_processes(config, _file(config))


def uses_gpu(config: TrainConfig) -> bool:
    """Whether a training here computes on a GPU.

    Raises:
        AccelerateConfigError: see `read_accelerate_config`.
    """
    file = _file(config)
    return config.num_gpus != 0 and not (file is not None and file.use_cpu) and _visible_gpus() > 0


def _file(config: TrainConfig) -> AccelerateConfig | None:
    return read_accelerate_config(config.accelerate_config) if config.accelerate_config else None


def _num_processes(config: TrainConfig, file: AccelerateConfig | None) -> int:
    if file is not None and file.use_cpu:
        there = file.num_processes or 1
    else:
        there = 0 if config.num_gpus == 0 else _visible_gpus()
    if file is not None and file.strategy != "ddp" and not there:
        raise NoGpuError(f"train.accelerate_config: {file.path} shards the model over GPUs, and none is used here")
    if file is not None and file.strategy != "ddp":
        _check_sharded(config, file)
    wanted = config.num_gpus or (file.num_processes if file else None) or there
    return max(1, min(wanted, there, config.rows_per_step))


def _check_sharded(config: TrainConfig, file: AccelerateConfig) -> None:
    """See that nothing is asked for that needs whole weights on each device.

    Raises:
        AccelerateConfigError: something is.
    """
    refused = {
        "train.quantization 4bit": config.quantization == "4bit",
        "train.load_best_model_at_end": config.load_best_model_at_end and file.strategy == "deepspeed",
    }
    for setting, is_asked_for in refused.items():
        if is_asked_for:
            raise AccelerateConfigError(
                f"{setting}: it cannot be had with the {file.strategy} of {file.path}; leave one of the two out"
            )
    if file.checkpoints_activations and config.gradient_checkpointing is not False:
        raise AccelerateConfigError(
            f"train.gradient_checkpointing: {file.path} asks FSDP for it with fsdp_activation_checkpointing, and one "
            "of them alone may do it; leave that out, or pass --train.gradient_checkpointing false"
        )


def become_ranks(config: TrainConfig, work_dir: Path, arguments: Sequence[str]) -> str | None:
    """Show this process the devices that it may use and, if there are several, start a rank for each.

    Args:
        work_dir: a file for accelerate is written there if there is none.
        arguments: of `python -m tasks.training.sft`, which each rank is.

    Returns:
        None: this process is to do the work, alone. Otherwise the ranks have ended; what is known of how, if it
        was not well.
    """
    file = _file(config)
    count = _num_processes(config, file)
    if file is not None and file.use_cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif config.num_gpus != 0 and (visible := _visible_gpus()):
        ids = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(visible)))
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(ids.split(",")[:count])
    if count == 1 and (file is None or file.strategy == "ddp"):
        return None
    return _launch(file, count, work_dir, arguments)


def _launch(file: AccelerateConfig | None, count: int, work_dir: Path, arguments: Sequence[str]) -> str:
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ[_LAUNCHER] = str(os.getpid())
    for name, interface in _LOOPBACK.items():
        os.environ.setdefault(name, interface)
    path = file.path if file else work_dir / "accelerate.yaml"
    if file is None:  # rather than what the user's home may hold for other programs
        path.write_text("distributed_type: MULTI_GPU\n")
    strategy = ["--multi_gpu"] if file is None or file.strategy == "ddp" else []  # for CPUs too: it says torchrun
    options = ["--config_file", str(path), *strategy, "--num_processes", str(count), "--num_machines", "1"]
    options += ["--main_process_port", "0", "--mixed_precision", "no"]  # how exact it is, the trainer says
    arguments = [*options, "--module", "tasks.training.sft", *arguments]
    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        code = failure.exitcode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"process {number + 1} of {count} {how}, and with it the others were ended"
    except SignalException as error:
        return f"its {count} processes were ended by signal {int(error.sigval)}"
    return ""


def _visible_gpus() -> int:
    import torch

    return torch.cuda.device_count()
