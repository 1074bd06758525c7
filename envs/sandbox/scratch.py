"""Where runs have their folders: one home per sandbox, locked while its process lives, swept by others afterwards.

The kernel drops a lock with its holder, so what a killed process left behind is told from what is in use.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_scratch_home(owner: object) -> Path:
    """A new folder that is removed when `owner` or this process is gone. Removes those of processes that are gone.

    Raises:
        OSError: there is no place for it, or what is there belongs to another user.
    """
    root = Path(tempfile.gettempdir(), f"winnow-sandbox-{os.getuid()}")
    root.mkdir(mode=0o700, exist_ok=True)
    # Nobody sweeps while the root is locked, so no home is seen before it has its lock.
    with _locked_root(root):
        _sweep(root)
        home = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
        lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    weakref.finalize(owner, _close_home, home, lock, os.getpid())
    return home


def remove_folder(folder: str | Path) -> None:
    """Remove a folder whatever is in it."""
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):  # a guest can nest folders deeper than Python removes them
        subprocess.run(["rm", "-rf", "--", folder], check=False, capture_output=True)


@contextmanager
def _locked_root(root: Path) -> Iterator[None]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        info = os.fstat(fd)
        if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
            raise PermissionError(f"{root} must belong to this user alone; remove it, or set TMPDIR to another folder")
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _sweep(root: Path) -> None:
    for home in root.iterdir():
        try:
            lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # its process has just removed it, or it is none of ours
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_folder(home)
        except BlockingIOError:
            pass  # in use
        finally:
            os.close(lock)


def _close_home(home: Path, lock: int, pid: int) -> None:
    if os.getpid() == pid:  # a forked child has a copy of the owner, but not the folder
        remove_folder(home)
    os.close(lock)
