r"""Final answers of mathematical replies: finding the one in \boxed{}, and judging whether it equals the reference.

Equality is math-verify's. It runs in a worker process, since an answer such as 9^{9^{9^9}} can only be stopped by
killing whoever computes it. At most `MAX_WORKERS` of them live, started when the others are not enough and closed at
exit.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from envs.sandbox.base import SandboxError

MAX_WORKERS = 2
MAX_ANSWER_CHARS = 1000
"""Longer ones are not final answers."""
PATIENCE_S = 2.0
"""How long an answer waits for a busy worker before another is started, which costs a second of a core."""
START_TIMEOUT_S = 120.0
"""Importing sympy takes under a second, or a minute on a machine that swaps."""

_WORKER = Path(__file__).with_name("math_worker.py")
_KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG")
_BRACES = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
_INTEGER = re.compile(r"-?\d+", re.ASCII)
_TWO_NUMBERS = re.compile(r"\d\s+\d+(?![\d\s]*/)", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_CRASHES = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGXCPU}


def extract_answer(reply: str) -> str | None:
    r"""What stands in the last \boxed{...} whose braces balance, stripped; None if there is none."""
    open_braces: list[tuple[int, bool]] = []  # where the content starts, and whether \boxed opened it
    last: tuple[int, int] | None = None
    for match in _BRACES.finditer(reply):
        text = match.group()
        if text == "}" and open_braces:
            start, is_boxed = open_braces.pop()
            if is_boxed and (last is None or start > last[0]):
                last = (start, match.start())
        elif text.endswith("{") and text != r"\{":
            open_braces.append((match.end(), text != "{"))
    return reply[slice(*last)].strip() if last else None


def is_equivalent(answer: str, gold: str, timeout_s: float = 5.0) -> bool:
    r"""Whether `answer` equals the reference `gold`, as mathematics. Both are LaTeX (`\frac{1}{2}`) or plain (`1/2`).

    Safe with hostile text on either side, and in any thread. An answer that is malformed, or that takes longer than
    `timeout_s` to judge, is not equivalent.

    Raises:
        SandboxError: no worker could be started, or it was killed twice by something else than the answer.
    """
    answer, gold = _tidy(answer), _tidy(gold)
    if not (_is_readable(answer) and _is_readable(gold)):
        return False
    if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(gold):
        return int(answer) == int(gold)
    return _POOL.ask(answer, gold, timeout_s)


def _tidy(answer: str) -> str:
    answer = " ".join(answer.split())
    if len(answer) > 1 and answer[0] == answer[-1] == "$":
        answer = answer.strip("$").strip()
    return answer.removesuffix(".")


def _is_readable(answer: str) -> bool:
    return (
        0 < len(answer) <= MAX_ANSWER_CHARS
        and not _CONTROL.search(answer)
        and not _TWO_NUMBERS.search(answer)  # math-verify adds up "80 5"
        and _braces_balance(answer)
    )


def _braces_balance(answer: str) -> bool:
    depth = 0
    for match in re.finditer(r"\\.|[{}]", answer):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth < 0:
            return False
    return depth == 0


class _WorkerDied(Exception):
    """The worker ended by itself. `code` is its return code."""

    def __init__(self, code: int) -> None:
        self.code = code


class _Worker:
    """One worker process. Used by one thread at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            # Not multiprocessing, whose child would import __main__ and all that it needs.
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
            start_new_session=True,  # Ctrl-C in the terminal is the host's to handle
        )

    def wait_until_ready(self) -> None:
        if self._read_line(START_TIMEOUT_S) is None:
            raise SandboxError(f"the math worker did not start within {START_TIMEOUT_S:.0f} s")

    def ask(self, answer: str, gold: str, timeout_s: float) -> bool | None:
        """The worker's verdict, or None if it takes too long; then the worker is of no more use."""
        assert self.process.stdin
        request = {"answer": answer, "gold": gold, "cpu_s": timeout_s + 1}
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")  # fits into the pipe, see MAX_ANSWER_CHARS
        except BrokenPipeError as error:
            raise _WorkerDied(self.process.wait()) from error
        reply = self._read_line(timeout_s)
        return None if reply is None else reply is True

    def _read_line(self, timeout_s: float) -> Any:
        assert self.process.stdout
        deadline = time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        line = b""
        while not line.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            chunk = os.read(self.process.stdout.fileno(), 4096)
            if not chunk:
                raise _WorkerDied(self.process.wait())
            line += chunk
        return json.loads(line)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


class _Pool:
    """At most `size` workers. A thread that finds none idle waits for one."""

    def __init__(self, size: int) -> None:
        self._places = threading.BoundedSemaphore(size)
        self._taking = threading.Lock()
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all: set[_Worker] = set()

    def ask(self, answer: str, gold: str, timeout_s: float) -> bool:
        with self._places:
            try:
                return self._ask_once(answer, gold, timeout_s)
            except _WorkerDied:
                pass
            try:
                return self._ask_once(answer, gold, timeout_s)
            except _WorkerDied as death:
                if death.code in _CRASHES:  # the same answer crashed two of them
                    return False
                raise SandboxError(
                    f"the math worker ended twice with code {death.code} (-9: killed, perhaps out of memory); "
                    "run the command again when the machine has memory free"
                ) from death

    def _ask_once(self, answer: str, gold: str, timeout_s: float) -> bool:
        worker = self._take()
        verdict = None
        try:
            verdict = worker.ask(answer, gold, timeout_s)
        finally:  # whatever happened: a worker without a verdict is not fit for another question
            if verdict is None:
                self._discard(worker)
            else:
                self._idle.put(worker)
        return bool(verdict)

    def _take(self) -> _Worker:
        """An idle worker that lives, or a new one."""
        with self._taking:
            with suppress(queue.Empty):
                while True:
                    worker = self._idle.get(timeout=PATIENCE_S) if self._all else self._idle.get_nowait()
                    if worker.process.poll() is None:
                        return worker
                    self._discard(worker)
            return self._start()

    def _start(self) -> _Worker:
        try:
            worker = _Worker()
        except OSError as error:
            raise SandboxError(f"the math worker cannot be started: {error}") from error
        self._all.add(worker)
        try:
            worker.wait_until_ready()
        except BaseException as error:
            self._discard(worker)
            if isinstance(error, _WorkerDied):
                raise SandboxError(
                    f"the math worker ended with code {error.code} before it was ready; "
                    f"is math-verify installed? Try: {sys.executable} -c 'import math_verify'"
                ) from error
            raise
        return worker

    def _discard(self, worker: _Worker) -> None:
        self._all.discard(worker)
        worker.close()

    def close(self) -> None:
        """Kill all workers; those in use end with `_WorkerDied` for who waits on them."""
        for worker in list(self._all):
            worker.process.kill()
            worker.process.wait()


_POOL = _Pool(MAX_WORKERS)
atexit.register(_POOL.close)
