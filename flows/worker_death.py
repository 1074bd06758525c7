"""A run that a worker has started does not outlive it: nobody could cancel it, and its GPU would stay taken.

Prefect's workers end their runs when they are told to end. One that is killed, or loses its machine's memory to another
program, leaves them running.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time

GRACE_S = 30.0
"""What Prefect gives a run that is cancelled, too; a training needs most of it to save a checkpoint."""


def end_with_worker() -> None:
    """Watch the process that has started this one, and end as if cancelled as soon as it is gone.

    The first process of a container has none: what started it ends the container.
    """
    if not (parent := os.getppid()):
        return
    worker = os.pidfd_open(parent)
    threading.Thread(target=_end_with, args=(worker,), name="worker watch", daemon=True).start()


def _end_with(worker: int) -> None:
    select.select([worker], [], [])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)
