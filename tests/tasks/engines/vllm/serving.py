"""A real vLLM server that somebody else has started, for tests of who asks it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.engines.vllm import kept_process
from tasks.engines.vllm.command import ServerSpec, server_command, server_environment
from tasks.engines.vllm.config import VllmConfig
from tasks.engines.vllm.server import _free_port

STARTER = Path(__file__).parents[4] / "tasks/training/starter_policy"
KEY = "for-tests-alone"

needs_vllm = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here: make test-vllm"),
]


@contextmanager
def serving(spec: ServerSpec, *extra_args: str, python: str | Path = sys.executable) -> Iterator[str]:
    """The address of a server, which asks for `KEY`. `python`: of an environment that has vLLM."""
    port = _free_port()
    config = VllmConfig(dtype="float32", extra_args=extra_args)
    command = [str(python), *server_command(spec, config, port)[1:]]
    owner = os.pidfd_open(os.getpid())
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(Path(kept_process.__file__).with_name("keeper.py"))),
                *(str(owner), "5", json.dumps(command), "[]"),
            ],
            env=server_environment(spec, KEY),
            stdout=log,
            stderr=log,
            pass_fds=[owner],
        )
        try:
            until = time.monotonic() + 300
            while not _answers(f"http://127.0.0.1:{port}/health"):
                log.seek(0)
                assert server.poll() is None and time.monotonic() < until, log.read().decode()[-3000:]
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(60)
            os.close(owner)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
