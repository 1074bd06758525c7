"""One writer per folder, held by the kernel: it is free again the moment its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

_held: set[int] = set()


def _forget_in_child() -> None:
    # A forked child shares its parent's lock and would keep it after the parent's death.
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def lock_folder(folder: Path) -> int:
    """Wait until no other process writes in `folder`, and keep others out. Returns a handle for `unlock_folder`.

    Says once, as a warning with the holder's process id, if it has to wait.
    """
    path = folder / "writer.lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _acquire(fd, folder)
            if _is_same_file(fd, path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                _held.add(fd)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # the folder was removed while we waited: what we hold guards nothing


def unlock_folder(fd: int) -> None:
    """Let the next writer in."""
    _held.discard(fd)
    os.close(fd)


def holder_of(lock: Path) -> str | None:
    """The process id of who holds a lock file, empty if it is not written there; None if nobody does."""
    try:
        fd = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, 32, 0).decode().strip()
    else:
        return None
    finally:
        os.close(fd)


def _acquire(fd: int, folder: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode().strip() or "unknown"
        logger.warning("%s is being written by process %s; waiting until it is done", folder, holder)
        fcntl.flock(fd, fcntl.LOCK_EX)


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
