"""References to published files, and the way they are published: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

CARD_NAME = "README.md"
"""A model's card. It is rewritten when there is more to tell of its folder, which stays the same."""


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files with their names; a card in it does not count."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    cards = {path / CARD_NAME, *path.glob(f".{CARD_NAME}.*.tmp")}  # the others are what a kill left of a new one
    for part in sorted(p for p in path.rglob("*") if p.is_file() and p not in cards):
        total.update(f"{part.relative_to(path)} {content_hash(part)}\n".encode())
    return total.hexdigest()


class Ref(BaseModel):
    """A published file or folder, named by its content. Parsing one checks the disk, so a stale ref is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    sha256: str

    @model_validator(mode="after")
    def _is_on_disk_unchanged(self) -> Self:
        if not self.path.exists():
            raise ValueError(f"{self.path} is gone")
        if content_hash(self.path) != self.sha256:
            raise ValueError(f"{self.path} has changed")
        return self


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def publish_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there gets its final name if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield tmp
        with tmp.open("rb") as file:
            os.fsync(file.fileno())
        tmp.replace(path)
        sync_folder(path.parent)
    finally:
        tmp.unlink(missing_ok=True)


@contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """The same for a folder. An older folder of that name is moved aside, then removed. A link stays, and the folder
    that it leads to is replaced.

    Between the two renames there is no folder of that name; one that a kill left aside there is put back by the next
    call.
    """
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    _put_back(path)
    tmp = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    tmp.mkdir()
    old = path.with_name(f".{path.name}.old")
    try:
        yield tmp
        for part in tmp.rglob("*"):
            if part.is_file():
                with part.open("rb") as file:
                    os.fsync(file.fileno())
        if path.exists():
            path.rename(old)
        tmp.rename(path)
        sync_folder(path.parent)
    finally:
        _put_back(path)
        shutil.rmtree(tmp, ignore_errors=True)


def _put_back(path: Path) -> None:
    """Undo half a replacement of a folder, or finish a whole one."""
    old = path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)
