"""What can be found out before hours of work: each check raises in one line what is wrong."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from flows.config import RunConfig
from tasks.dataset.select import check_agent_ratios
from tasks.engines.model_files import resolve_model
from tasks.engines.scripted import scripted_engine
from tasks.rollout.collection import Collection

MIN_FREE_BYTES = 200 * 1024**2
MODEL_FILES = {"adapter_config.json", "config.json"}


class FolderError(ValueError):
    """A folder that the run must write to cannot be used."""


def check_playing(config: RunConfig, *, collects: bool, evaluates: bool) -> None:
    """See that there are problems to play and a model to play them.

    Raises:
        ValueError: a problem file, the model or the script is not there, or a role does not play.
    """
    if config.engine.kind == "scripted":
        scripted_engine(config.engine)
    else:
        resolve_model(config.model)
    if collects:
        check_agent_ratios(config.collect.agent_ratios or {}, config.play.env_class.seats_for(config.env))
        Collection.for_training(config.play)
    if evaluates:
        Collection.for_evaluation(config.play, config.evaluate, None)
    check_writable(config.data_dir, "collect.data_dir")


def check_training(config: RunConfig) -> None:
    """See that the trained model can be written, before anything is collected for it.

    Raises:
        ValueError: it cannot.
    """
    resolve_model(config.model)
    folder = config.output_dir
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).exists() for name in MODEL_FILES):
        raise FolderError(f"train.output_dir: {folder} holds other files, and would be replaced; give a folder of its own")
    check_writable(folder, "train.output_dir")


def check_writable(folder: Path, key: str) -> None:
    """See that files can be written in `folder`, which is made if need be, and that its disk is not full.

    Raises:
        FolderError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in (folder, folder.parent):
            with tempfile.TemporaryFile(dir=place):
                pass
    except OSError as error:
        raise FolderError(f"{key}: cannot write in {folder}: {error.strerror}; give a folder that is yours") from error
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise FolderError(f"{key}: {free // 1024**2} MiB are free in {folder}; wanted {MIN_FREE_BYTES // 1024**2} MiB")
