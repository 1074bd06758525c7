"""Which adapters play: those in a folder, or what was promoted when the run was to start.

A retry starts later and must play as the first try did, so that it resumes: hence the time in place of the pointer.
"""

from __future__ import annotations

from pathlib import Path

from flows.config import RunConfig
from flows.schedule import run_start
from tasks.engines.model_files import check_base, holds_model
from tasks.promotion.history import promoted_at, read_history
from tasks.promotion.promoted import is_promoted_folder, version_folder
from tasks.rollout.artifact import Ref, content_hash


class FolderError(ValueError):
    """A folder that the run must read or write cannot be used."""


def adapter_folders(config: RunConfig, folder: Path, key: str) -> dict[str, Path]:
    """The folder of each policy's trained model, absolute; empty where a -promoted folder promotes the bare model.

    Args:
        folder: what the user gave: a model folder or a -promoted one.
        key: what they gave it for, for the message.

    Raises:
        FolderError: there is none.
        ValueError: it is an adapter of another model than the config's.
    """
    folder = folder.expanduser().absolute()
    if is_promoted_folder(folder):
        version = promoted_at(read_history(folder), run_start())
        if version is None:
            return {}
        folder = version_folder(folder, version)
    folders = config.adapters_in(folder)
    for one in folders.values():
        _check(one, config, key)
    return folders


def collecting_adapters(config: RunConfig) -> dict[str, Ref]:
    """The adapter that each policy collects with; one without plays as the bare model.

    Raises:
        ValueError: see `adapter_folders`.
    """
    return refs(collecting_folders(config))


def collecting_folders(config: RunConfig) -> dict[str, Path]:
    """Their folders, absolute; empty where all policies collect as the bare model.

    Raises:
        ValueError: see `adapter_folders`.
    """
    given = config.collect.adapter_dir
    return {} if given is None else adapter_folders(config, given, "collect.adapter_dir")


def refs(folders: dict[str, Path]) -> dict[str, Ref]:
    """The same folders, named by their content."""
    return {policy: Ref(path=folder, sha256=content_hash(folder)) for policy, folder in folders.items()}


def _check(folder: Path, config: RunConfig, key: str) -> None:
    if not holds_model(folder):
        raise FolderError(f"{key}: {folder} holds no adapter_config.json; give the folder that a training wrote")
    if config.engine.kind not in ("openai_http", "scripted"):  # these do not play model.path
        check_base(folder, config.model, key)
