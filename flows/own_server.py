"""The Prefect server that a run starts for itself where the user has none: it must not outlive the run."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import prefect
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
)

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
    _use_a_database_that_can_be_read()
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


def _use_a_database_that_can_be_read() -> None:
    """Where a newer Prefect has made the database, have the server take another one: it could not even start.

    Environments with and without vLLM have different Prefects, and one home.
    """
    home = Path(PREFECT_HOME.value())
    usual = home / "prefect.db"
    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if url is not None and str(usual) not in url:
        return  # the user has chosen one
    revision = _revision_of(usual)
    if revision is None or revision in _known_revisions():
        return
    other = home / f"prefect-{prefect.__version__}.db"
    print(f"{usual} was made by a newer Prefect; this run is noted in {other}", file=sys.stderr, flush=True)
    os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{other}"


def _revision_of(database: Path) -> str | None:
    """What the schema of a database is called, if it can be told."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            [[revision]] = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            return str(revision)
    except (sqlite3.Error, ValueError):
        return None


def _known_revisions() -> set[str]:
    """The schemas that this Prefect knows how to bring up to date."""
    folder = Path(prefect.__file__).parent / "server/database/_migrations/versions/sqlite"
    texts = (file.read_text() for file in folder.glob("*.py"))
    return {found for text in texts for found in re.findall(r"^revision(?:: str)? = [\"'](\w+)[\"']", text, re.M)}


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
