"""A child process that never outlives this one, kill -9 included, and takes along all that it has started.

The other side is `keeper.py`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

GRACE_S = 10.0
"""How long a process that is asked to end may take before it is killed."""
_GONE_WITHIN_S = GRACE_S + 70.0
"""More than the keeper ever takes; see there."""
_KEEPER = Path(__file__).with_name("keeper.py")


class KeptProcess:
    """A running command; see the module's docstring. It is asked to end, too, once nobody holds this any more."""

    def __init__(self, keeper: subprocess.Popen[bytes]) -> None:
        """Use `start`."""
        self._keeper = keeper
        weakref.finalize(self, keeper.terminate)

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
                # Not asyncio's: at the end of its loop that kills what still runs, and a killed keeper keeps nothing.
                keeper = subprocess.Popen(
                    [
                        *(sys.executable, "-I", "-S", str(_KEEPER), str(owner), str(GRACE_S)),
                        *(json.dumps(list(command)), json.dumps(list(at_end))),
                    ],
                    stdin=subprocess.DEVNULL,
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
        return self._keeper.poll()

    async def wait(self) -> int:
        """Wait until it has ended, and all that it had started too."""
        if self._keeper.poll() is None:
            ended = asyncio.Event()
            watched = os.pidfd_open(self._keeper.pid)
            loop = asyncio.get_running_loop()
            loop.add_reader(watched, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(watched)
                os.close(watched)
        return self._keeper.wait()

    async def stop(self) -> None:
        """Ask it to end and, if it does not, kill it. Nothing of it is left afterwards. Safe to call twice.

        Whoever is cancelled here only waits no longer: the keeper goes on to end it.
        """
        self._keeper.terminate()
        try:
            async with asyncio.timeout(_GONE_WITHIN_S):
                await self.wait()
        except TimeoutError:
            logger.warning("process %d does not end, though it was killed: it waits for a device", self._keeper.pid)
        code = self.returncode
        if code is None or code < 0:  # the keeper hangs or was itself killed: its group is what is left
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._keeper.pid, signal.SIGKILL)
