"""Where losses are shown beside train_log.jsonl: TensorBoard, trackio, Weights & Biases. None of them unless asked for.

A training that was resumed goes on in the same run, and tells no step twice. Keys come from the environment alone, and
nothing leaves this machine unless one is there.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.training.job import Job

if TYPE_CHECKING:
    from tasks.training.progress.log import Entry, Tracker

_PROJECT = "winnow"


class TrackerMissingError(ValueError):
    """A package that `train.report_to` names is not installed."""


def check_trackers(names: Sequence[str]) -> None:
    """See, before anything runs, that all of them are installed.

    Raises:
        TrackerMissingError: one is not.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise TrackerMissingError(
                f"train.report_to: {name} is not installed in this environment; pip install -e '.[{name}]', or leave "
                "it out"
            )


def open_trackers(job: Job) -> list[Tracker]:
    """Those that the job's config names."""
    kinds: dict[str, type[_TensorBoard] | type[_Trackio] | type[_Wandb]] = {
        "tensorboard": _TensorBoard,
        "trackio": _Trackio,
        "wandb": _Wandb,
    }
    return [kinds[name](job) for name in job.config.report_to]


class _TensorBoard:
    """Files in `<output_dir>-tensorboard/<key>`, which `tensorboard --logdir` shows while they grow."""

    def __init__(self, job: Job) -> None:
        self._folder = tensorboard_folder(job.output_dir) / _run_key(job)

    def begin(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(self._folder))

    def tell(self, entry: Entry) -> None:
        for name, value in _figures(entry).items():
            self._writer.add_scalar(name, value, int(entry["step"]))

    def end(self) -> None:
        self._writer.close()


class _Run:
    """One run of a tracker with the interface of wandb, which trackio has too. `begin` opens it."""

    _run: Any

    def __init__(self, job: Job) -> None:
        self._job = job

    def tell(self, entry: Entry) -> None:
        self._run.log(_figures(entry), step=int(entry["step"]))

    def end(self) -> None:
        self._run.finish()


class _Trackio(_Run):
    """A project on this machine, or in the Space that TRACKIO_SPACE_ID names."""

    def begin(self) -> None:
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", _PROJECT),
            name=f"{self._job.output_dir.name}-{_run_key(self._job)}",
            config=_shown_config(self._job),
            resume="allow",
            embed=False,
        )


class _Wandb(_Run):
    """A run of Weights & Biases: sent if WANDB_API_KEY is there, else kept in ./wandb for `wandb sync`."""

    def begin(self) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=self._job.output_dir.name,
            id=_run_key(self._job),
            config=_shown_config(self._job),
            mode=mode,
            resume="allow",
            settings=wandb.Settings(console="off", save_code=False, disable_git=True),
        )


def tensorboard_folder(output_dir: Path) -> Path:
    """Where TensorBoard's files of a model folder are."""
    return output_dir.with_name(f"{output_dir.name}-tensorboard")


def _run_key(job: Job) -> str:
    """The same for a training and for what resumes it."""
    return job.work_dir.name.rpartition("-")[2]


def _figures(entry: Entry) -> dict[str, float]:
    return {f"train/{name}": value for name, value in entry.items() if name != "step"}


def _shown_config(job: Job) -> dict[str, Any]:
    settings = job.config.model_dump(mode="json", exclude={"data_path", "output_dir"})
    return {**settings, "model": job.model_name, "data": [path.name for path in job.data]}
