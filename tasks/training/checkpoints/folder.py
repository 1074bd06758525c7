"""Checkpoints on disk: each one whole or not there at all, however its writing ended.

`folder/checkpoint-<step>` holds what a resumed training needs, and a manifest of its files. It is written as
`folder/.writing/checkpoint-<step>`, made durable, and then gets its name.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from tasks.rollout.artifact import content_hash, publish_file, sync_folder

MANIFEST = "manifest.json"
WRITING = ".writing"
_PREFIX = "checkpoint-"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TORCH_COULD_NOT_WRITE = ("inline_container", "PytorchStreamWriter", "iostream")
"""Torch has no error class of its own for a file that it could not write, and no errno in its text."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or not be resumed from. Earlier ones are as they were."""


class Manifest(BaseModel):
    """What a checkpoint is made of. It is its last file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: str
    """How a model was laid out over devices, where only such a training can read its states."""
    files: dict[str, tuple[int, str]]
    """Bytes and SHA-256 of each file, by its path in the checkpoint."""


class Checkpoints:
    """The checkpoints of one training, which has the folder to itself."""

    def __init__(self, folder: Path, keep: int) -> None:
        """`keep`: how many of the newest stay."""
        self.folder = folder
        self._keep = keep

    @property
    def writing_folder(self) -> Path:
        """Where a checkpoint that is not whole yet lies, under its later name."""
        return self.folder / WRITING

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.folder / f"{_PREFIX}{step}"

    def step(self, path: Path) -> int:
        """The step that a checkpoint is of."""
        return int(path.name.removeprefix(_PREFIX))

    def steps(self) -> list[int]:
        """Steps that there is a checkpoint of, ascending."""
        return sorted(self.step(path) for path in self.folder.glob(f"{_PREFIX}*"))

    def newest_whole(self, form: str) -> tuple[Path | None, list[str]]:
        """The checkpoint to go on from, and a line about each that is damaged. Those are removed, as are leftovers.

        Raises:
            CheckpointError: it was written in another form than the one that is wanted.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.writing_folder, ignore_errors=True)
        damaged = []
        for step in reversed(self.steps()):
            path = self.path(step)
            try:
                written_as = _verified(path).form
            except _Damaged as fault:
                damaged.append(f"checkpoint {path} is damaged ({fault}): it is left out, and the one before it is used")
                self._remove(path)
                continue
            if written_as != form:
                raise CheckpointError(
                    f"{path} was written by a training with {written_as}; wanted one with {form}; train as before, or "
                    f"remove {self.folder} to begin anew"
                )
            return path, damaged
        return None, damaged

    def publish(self, step: int, form: str) -> None:
        """Give the checkpoint in `writing_folder` its name when all of it is on disk, and forget the oldest."""
        written = self.writing_folder / self.path(step).name
        files = sorted(path for path in written.rglob("*") if path.is_file())
        listed = {str(path.relative_to(written)): (path.stat().st_size, content_hash(path)) for path in files}
        for path in files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        for folder in (path for path in written.rglob("*") if path.is_dir()):
            sync_folder(folder)
        with publish_file(written / MANIFEST) as tmp:  # this syncs the checkpoint's own folder, too
            tmp.write_text(Manifest(form=form, files=listed).model_dump_json())
        written.rename(self.path(step))
        sync_folder(self.folder)

    def forget_old(self) -> None:
        """Remove all but the newest."""
        for step in self.steps()[: -self._keep]:
            self._remove(self.path(step))
        shutil.rmtree(self.writing_folder, ignore_errors=True)

    def _remove(self, checkpoint: Path) -> None:
        """Its name goes first: what has one is whole."""
        self.writing_folder.mkdir(exist_ok=True)
        shutil.rmtree(checkpoint.rename(self.writing_folder / f"old-{checkpoint.name}"), ignore_errors=True)

    @contextmanager
    def explained(self, step: int, bytes_needed: int, sweeps: bool = True) -> Iterator[None]:
        """Turn what goes wrong in writing a checkpoint into one line, and remove the half of it that was written.

        Args:
            bytes_needed: about how large it is.
            sweeps: of several processes that write it, the one that removes it.

        Raises:
            CheckpointError: it could not be written.
        """
        try:
            yield
        except (OSError, SafetensorError, RuntimeError) as error:
            free = shutil.disk_usage(self.folder).free
            if sweeps:
                shutil.rmtree(self.writing_folder, ignore_errors=True)
            if isinstance(error, RuntimeError) and not is_disk_full(error):
                raise
            reason = "no space left" if is_disk_full(error) else str(error)
            steps = self.steps()
            kept = f"the one of step {steps[-1]} is kept" if steps else "there is none before it"
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {self.folder}: {reason}; it needs about "
                f"{_size(bytes_needed)}, {_size(free)} are free; {kept}. Make room and run the same command again: it "
                "goes on from there"
            ) from error


class _Damaged(Exception):
    """What of a checkpoint is not as its manifest says."""


def _verified(checkpoint: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json((checkpoint / MANIFEST).read_text())
    except (OSError, ValidationError, UnicodeDecodeError):
        raise _Damaged(f"no readable {MANIFEST}") from None
    for name, (size, sha256) in manifest.files.items():
        path = checkpoint / name
        if not path.is_file():
            raise _Damaged(f"{name} is gone")
        if path.stat().st_size != size:
            raise _Damaged(f"{name} has {path.stat().st_size:,} of {size:,} bytes")
        if content_hash(path) != sha256:
            raise _Damaged(f"{name} has changed")
    return manifest


def is_disk_full(error: BaseException) -> bool:
    """Whether a file could not be written for want of room. Torch does not say why it could not; mostly it is that."""
    if isinstance(error, OSError):
        return error.errno in _NO_SPACE
    text = str(error)
    if isinstance(error, SafetensorError):
        return any(f"os error {code})" in text for code in _NO_SPACE)
    return isinstance(error, RuntimeError) and any(word in text for word in _TORCH_COULD_NOT_WRITE)


def _size(number: int) -> str:
    """Bytes as people read them."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
