"""The Prefect server that a run starts for itself where the user has none: it must not outlive the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED

_WATCH = """
import select, signal, sys
run, server = map(int, sys.argv[1:])
select.select([run, server], [], [])
try:
    signal.pidfd_send_signal(server, signal.SIGTERM)
except ProcessLookupError:
    pass
"""
"""A process's descriptor becomes readable when the process ends, and never stands for a later one of its number."""


def start_own_server() -> None:
    """Start the server that Prefect's client would start, unless the user has one, and have it end with this process.

    Prefect stops it at a normal exit. A process of its own sees to it when this one is killed.
    """
    if PREFECT_API_URL.value() or not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        return
    server = SubprocessASGIServer()
    # Ctrl-C reaches every process of the terminal; the run still has to tell the server how it ended. A blocked signal
    # stays blocked across exec, whatever handlers the server sets.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        server.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if server.server_process is not None:
        _end_with_us(server.server_process.pid)


def _end_with_us(pid: int) -> None:
    descriptors = [os.pidfd_open(os.getpid()), os.pidfd_open(pid)]
    subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCH, *map(str, descriptors)],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # else Ctrl-C ends the watch before the run
    )
    for descriptor in descriptors:
        os.close(descriptor)
