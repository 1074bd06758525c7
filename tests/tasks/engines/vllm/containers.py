"""A `docker` of the tests' own, whose containers speak vLLM's API and do as they are told."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = """
    import json, os, sys, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    folder, words = sys.argv[1], sys.argv[2:]

    def note(file, text):
        with open(f"{folder}/{file}", "a") as f:
            f.write(f"{text}\\n")

    if words[0] == "rm":
        note("removed", words[-1])
        sys.exit()

    note("pids", os.getpid())
    host, port, _ = words[words.index("--publish") + 1].split(":")
    fates = open(f"{folder}/fates").read().splitlines()
    what, _, more = fates[min(len(open(f"{folder}/pids").readlines()), len(fates)) - 1].partition(" ")
    if what == "remove-log":
        os.unlink(os.readlink("/proc/self/fd/1"))
        sys.exit(1)
    if what == "fail":
        sys.exit(more)
    time.sleep(float(more or 0))

    class Server(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def say(self, answer):
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.say({"data": [{"id": "winnow/base", "owned_by": "vllm"}]})

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "lora_name" in asked:
                print("RuntimeError: no room for the adapter", flush=True)
                os._exit(1)
            said = asked["messages"][-1]["content"]
            while "die" in said and len(open(f"{folder}/pids").readlines()) == 1:
                note("asked", said)
                time.sleep(60)
            self.say({"choices": [{"message": {"content": "1"}, "finish_reason": "stop"}]})

    ThreadingHTTPServer((host, int(port)), Server).serve_forever()
"""


class Containers:
    """What is told to the containers, and what is seen of them.

    A request that says `die` is not answered by the first one, and an adapter is more than any of them survives.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
        docker = folder / "docker"
        docker.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {folder}/program.py {folder} "$@"\n')
        docker.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        self.will("serve")

    def will(self, *fates: str) -> None:
        """What each one does, the last for all later ones: `serve`, after so many seconds; `fail` with some words; or
        `remove-log`, and fail.
        """
        (self._folder / "fates").write_text("\n".join(fates))

    def noted(self, file: str) -> list[str]:
        """`pids`, `removed` or `asked`, in order."""
        path = self._folder / file
        return path.read_text().splitlines() if path.exists() else []

    def kill(self) -> None:
        """End the newest one as a fault would."""
        os.kill(int(self.noted("pids")[-1]), signal.SIGKILL)
