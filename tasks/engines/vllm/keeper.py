"""Runs one command, and ends it with all that it has started as soon as its owner ends, in whatever way that is.

    python -I -S keeper.py OWNER GRACE_S COMMAND AT_END

OWNER is an inherited pidfd of the owner; COMMAND and AT_END are JSON lists of words. SIGTERM asks the command to end
and, after GRACE_S seconds, no longer asks. Whatever a dying process leaves behind becomes a child of this one, so none
gets away, not even into a session of its own. AT_END, if it has words, is run when all is over. The exit code is the
command's, 128 + n if a signal n ended it.

Standard library only: it must start in milliseconds and need nothing of the owner's environment.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILLED_WITHIN_S = 30.0
"""A killed process that is not gone by then waits for a device, and no signal helps."""
_AT_END_WITHIN_S = 30.0


def main(owner: int, grace_s: float, command: list[str], at_end: list[str]) -> int:
    """Keep `command` until it ends, the owner ends, or SIGTERM comes."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the owner's business
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    )
    ended = os.pidfd_open(child.pid)
    ready, _, _ = select.select([owner, ended, told], [], [])
    if ended not in ready and owner not in ready:
        child.terminate()
        select.select([owner, ended], [], [], grace_s)
    returncode = child.poll()  # before its zombie is reaped with the others
    _kill_children()
    if at_end:
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(at_end, stdin=subprocess.DEVNULL, timeout=_AT_END_WITHIN_S, check=False)
    if returncode is None:
        return 128 + signal.SIGKILL
    return returncode if returncode >= 0 else 128 - returncode


def _kill_children() -> None:
    """Kill all children, and those that they leave, until there are none."""
    until = time.monotonic() + _KILLED_WITHIN_S
    while time.monotonic() < until:
        for pid in _children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def _children() -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                yield int(folder.name)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])))
