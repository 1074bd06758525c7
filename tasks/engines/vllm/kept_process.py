"""A child process that never outlives this one, kill -9 included, and takes along all that it has started.

The other side is `keeper.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

GRACE_S = 10.0
"""How long a process that is asked to end may take before it is killed."""
_GONE_WITHIN_S = GRACE_S + 60.0
_KEEPER = Path(__file__).with_name("keeper.py")


class KeptProcess:
    """A running command; see the module's docstring."""

    def __init__(self, keeper: asyncio.subprocess.Process) -> None:
        """Use `start`."""
        self._keeper = keeper

    @classmethod
    async def start(
        cls, command: Sequence[str], environment: Mapping[str, str], log: Path, at_end: Sequence[str] = ()
    ) -> KeptProcess:
        """Run a command with no input and its output in a file.

        Args:
            at_end: a command that is run once the first one is gone, e.g. to remove its container.

        Raises:
            OSError: the log file or a process cannot be made. That a command does not exist is in its log, and it ends.
        """
        owner = os.pidfd_open(os.getpid())
        try:
            with log.open("ab") as output:
                keeper = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", str(_KEEPER), str(owner), str(GRACE_S)),
                    *(json.dumps(list(command)), json.dumps(list(at_end))),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=dict(environment),
                    pass_fds=[owner],
                    start_new_session=True,  # else Ctrl-C ends it before it is asked to
                )
        finally:
            os.close(owner)
        return cls(keeper)

    @property
    def returncode(self) -> int | None:
        """How it ended, as a shell tells it; None while it runs."""
        return self._keeper.returncode

    async def wait(self) -> int:
        """Wait until it has ended, and all that it had started too."""
        return await self._keeper.wait()

    async def stop(self) -> None:
        """Ask it to end and, if it does not, kill it. Nothing of it is left afterwards. Safe to call twice."""
        if self._keeper.returncode is None:
            with suppress(ProcessLookupError):
                self._keeper.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_GONE_WITHIN_S):
                await self._keeper.wait()
        finally:
            if (self._keeper.returncode or -1) < 0:  # the keeper itself was killed: its group is what is left of it
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._keeper.pid, signal.SIGKILL)
