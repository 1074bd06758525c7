"""A disk that is small enough to be full."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class SmallDisk:
    """A file system of its own or, where none may be mounted, a folder in which a process may be kept from writing."""

    folder: Path
    is_mounted: bool

    def fill(self, pid: int) -> None:
        """Leave no room for what that process writes, but for very small files."""
        if not self.is_mounted:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
            return
        free = shutil.disk_usage(self.folder).free
        (self.folder / "filling").write_bytes(bytes(free - 20_000))

    def empty(self) -> None:
        """Make room again."""
        (self.folder / "filling").unlink(missing_ok=True)


@contextmanager
def opened(folder: Path, size: str) -> Iterator[SmallDisk]:
    """A disk at `folder`, which is made."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    is_mounted = bool(shutil.which("mount")) and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield SmallDisk(folder, is_mounted)
    finally:
        if is_mounted:
            # Lazily: torch keeps a file open that it could not write.
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
