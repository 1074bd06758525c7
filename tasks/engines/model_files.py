"""Where a model's files are and what they are: found, checked and fingerprinted without loading the model.

Comes in: `ModelConfig`. Goes out: a folder that transformers can load, and a hash of what it holds.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

from tasks.engines.config import ModelConfig
from tasks.rollout.artifact import content_hash

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
GENERATION_CONFIG = "generation_config.json"
STARTER = "starter"
STARTER_FOLDER = Path(__file__).parent.parent / "training" / "starter_policy"

_MODEL_PATTERNS = ("*.json", "*.jinja", "*.safetensors", "*.bin", "*.model", "*.txt", "*.py")
"""Files that decide what a model answers: config, tokenizer, chat template, weights, remote code."""
_RUN_FILES = {"training_args.bin", "trainer_state.json", "optimizer.bin", "scheduler.bin"}
"""Files of those suffixes that say how a model was made, not what it is."""


HUB_TIMEOUT_S = 5.0
"""The hub counts as out of reach when it has not answered for so long."""


class ModelNotFoundError(ValueError):
    """`model.path` names nothing that can be loaded."""


def resolve_model(model: ModelConfig) -> Path:
    """The folder with the model's files; a hub name is taken from the local cache, else downloaded.

    Raises:
        ModelNotFoundError: there is no such model, in one line with what to do.
    """
    if model.path == STARTER:
        return _checked_folder(STARTER_FOLDER)
    folder = Path(model.path).expanduser()
    if folder.is_dir():
        return _checked_folder(folder.resolve())
    if folder.exists():
        raise ModelNotFoundError(f"model.path: {folder} is a file; give the folder that holds its config.json")
    if _looks_like_a_folder(model.path):
        raise ModelNotFoundError(
            f"model.path: no folder {folder}; give a folder with a Hugging Face model, a hub name, or `starter`"
        )
    return _checked_folder(_hub_folder(model.path))


def is_at_hand(model: ModelConfig) -> bool:
    """Whether a hub name is in the local cache or the hub has it. Nothing is downloaded."""
    if Path(model.path).is_dir() or _cached_folder(model.path) is not None:
        return True
    try:
        _ask_hub(model.path)
    except Exception:  # the hub client lets through whatever its HTTP library raises
        return False
    return True


def model_fingerprint(model: ModelConfig) -> str:
    """Hash of what the model's files hold, in 16 hex digits; never of where they are.

    Raises:
        ModelNotFoundError: there is no such model.
    """
    files = model_files(resolve_model(model))
    total = hashlib.sha256()
    for file in files:
        status = file.stat()
        total.update(f"{file.name} {_file_hash(file, status.st_size, status.st_mtime_ns)}\n".encode())
    return total.hexdigest()[:16]


def is_lora(folder: Path) -> bool:
    """Whether a trained model's folder holds an adapter, and not a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def holds_model(folder: Path) -> bool:
    """Whether a folder holds what a training writes: an adapter or a whole model."""
    return is_lora(folder) or (folder / "config.json").is_file()


def check_base(folder: Path, model: ModelConfig, key: str) -> None:
    """See that an adapter was trained on this model. A base that is gone from here is known by its name alone.

    Args:
        key: of the config, which names the adapter's folder.

    Raises:
        ValueError: it was trained on another one.
    """
    try:
        base = json.loads((folder / ADAPTER_CONFIG).read_text()).get("base_model_name_or_path")
    except FileNotFoundError:  # a whole model
        return
    given = resolve_model(model)
    if not base or base == model.path or Path(base) == given:
        return
    if (Path(base) / "config.json").is_file():
        same = model_fingerprint(ModelConfig(path=base)) == model_fingerprint(model)
    else:
        same = Path(base).name in {Path(model.path).name, given.name}
    if not same:
        raise ValueError(
            f"{key}: {folder} was trained on {base}, but model.path is {model.path}; pass --model.path {base}"
        )


def model_files(folder: Path) -> list[Path]:
    """The files in a model folder that decide its answers, by name."""
    found = {file for pattern in _MODEL_PATTERNS for file in folder.glob(pattern) if file.is_file()}
    return sorted(file for file in found if file.name not in _RUN_FILES)


@lru_cache(maxsize=256)
def _file_hash(file: Path, size: int, mtime_ns: int) -> str:
    """Hash of a file; read once per process as long as its size and time stay."""
    return content_hash(file)


def _checked_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError(f"model.path: {folder} has no config.json; give a folder with a Hugging Face model")
    weights = [f for f in model_files(folder) if f.suffix in {".safetensors", ".bin"}]
    if not weights:
        raise ModelNotFoundError(f"model.path: {folder} has no weights (*.safetensors); is its download complete?")
    if all(f.name.startswith("adapter_") for f in weights):
        raise ModelNotFoundError(
            f"model.path: {folder} holds an adapter, not a whole model; give the base model that it was trained on"
        )
    return folder


def _looks_like_a_folder(path: str) -> bool:
    """A hub name is `name` or `owner/name`, nothing else."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or path.endswith("/")


def _cached_folder(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(name, allow_patterns=list(_MODEL_PATTERNS), local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError:
        raise ModelNotFoundError(f"model.path: {name!r} is neither a folder that exists nor a hub name") from None
    return cached if any(cached.glob("*.safetensors")) or any(cached.glob("*.bin")) else None


def _ask_hub(name: str) -> None:
    """One look-up, with no retries: a download would try for a minute before it says that there is no hub."""
    from huggingface_hub import HfApi

    HfApi().model_info(name, timeout=HUB_TIMEOUT_S)


def _hub_folder(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    cached = _cached_folder(name)
    if cached is not None:
        return cached
    try:
        _ask_hub(name)
        return Path(snapshot_download(name, allow_patterns=list(_MODEL_PATTERNS)))
    except RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"model.path: there is no folder {name!r}, and the hub has no such model (or needs HF_TOKEN for it)"
        ) from None
    except Exception as error:  # the hub client lets through whatever its HTTP library raises
        raise ModelNotFoundError(
            f"model.path: {name!r} is not a folder here, not in the local cache, and the hub cannot be reached "
            f"({type(error).__name__}); give a folder with the model, or `starter`"
        ) from error


def quiet_transformers() -> None:
    """No progress bars and load reports in a terminal that shows the run's own progress."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns at every fork
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
