"""A Prefect server as a team has it, with its UI and its services, for as long as pictures are taken or tests run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

START_S = 120


@contextmanager
def prefect_server(home: Path, **settings: str) -> Iterator[str]:
    """The server's address, such as http://127.0.0.1:4200. All that it keeps is in `home`, unless settings differ."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    own = {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"{address}/api", "PREFECT_UI_API_URL": f"{address}/api"}
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | own | settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(f"{address}/api/health", server, home / "log")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < give_up:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError(f"the server does not answer at {url}; its log: {log.read_text()}")
