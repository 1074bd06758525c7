"""A cached result lies where an earlier run put it. These bring it to the folder that is asked for now."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TypeVar

from tasks.dataset.records import DatasetRef
from tasks.dataset.relabel import ControlRef
from tasks.rollout.artifact import Ref, content_hash, publish_file, publish_folder
from tasks.rollout.journal import EpisodesRef

R = TypeVar("R", bound=Ref)


def bring_journal(episodes: EpisodesRef, data_dir: Path) -> EpisodesRef:
    """The same episodes with their journal in `data_dir`; one that is there already may have grown, and stays."""
    folder = episodes.path.parent
    wanted = data_dir / ".episodes" / folder.name
    if wanted.exists():
        return episodes
    wanted.parent.mkdir(parents=True, exist_ok=True)
    tmp = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=wanted.parent))
    try:
        shutil.copytree(folder, tmp, dirs_exist_ok=True, ignore=shutil.ignore_patterns("writer.lock"))
        tmp.rename(wanted)  # fails if another run has begun to write there meanwhile: its journal stays
    except OSError:
        if not wanted.exists():
            raise
        return episodes
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return episodes.model_copy(update={"path": wanted / episodes.path.name})


def bring_dataset(dataset: DatasetRef, data_dir: Path) -> DatasetRef:
    """The same data file in `data_dir`, with those that belong to it. Another file of its name is left alone."""
    there = dataset.model_copy(update={"path": data_dir / dataset.path.name})
    if there.path.exists():
        return there if content_hash(there.path) == dataset.sha256 else dataset
    pairs = [(dataset.rejected_path, there.rejected_path), (dataset.config_path, there.config_path)]
    for source, target in [*pairs, (dataset.path, there.path)]:
        with publish_file(target) as tmp:
            shutil.copyfile(source, tmp)
    return there


def bring_control(control: ControlRef, data_dir: Path) -> ControlRef:
    """The same data file of a control in `data_dir`; its name says what is in it."""
    there = data_dir / "controls" / control.path.name
    if not (there.exists() and content_hash(there) == control.sha256):
        with publish_file(there) as tmp:
            shutil.copyfile(control.path, tmp)
    return control.model_copy(update={"path": there})


def bring_folder(ref: R, folder: Path) -> R:
    """The same folder under another path."""
    if folder != ref.path and not (folder.exists() and content_hash(folder) == ref.sha256):
        with publish_folder(folder) as tmp:
            shutil.copytree(ref.path, tmp, dirs_exist_ok=True, copy_function=shutil.copy)  # files are new, not old
    return ref.model_copy(update={"path": folder})
