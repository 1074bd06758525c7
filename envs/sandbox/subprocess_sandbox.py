"""Untrusted Python in a plain subprocess with rlimits: `tier = "subprocess"`.

Covers: time, memory, output and file sizes; what a run leaves in its process group, its folder or its environment; a
crash of any kind; a forged verdict, since no expected value is ever in a guest.
Does not cover: files and network (a guest may do what this user may), the total size of what a guest writes to disk
while it runs, and a child that leaves the process group by setsid.

A run is one start of the bare base interpreter (about 10 ms). Its standard streams are anonymous memory files: there is
no pipe to drain, so no deadlock, and the kernel itself holds the output cap.
"""

from __future__ import annotations

import marshal
import math
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from envs.sandbox import wire
from envs.sandbox.base import CallResult, Run, RunStatus, SandboxConfig, SandboxError
from envs.sandbox.scratch import open_scratch_home, remove_folder

GUEST = Path(__file__).with_name("guest.py")
STDERR_TAIL_BYTES = 4096
STACK_BYTES = 64 << 20
"""Room for deep recursion; the usual 8 MiB end programs that are right."""
OPEN_FILES = 64


class SubprocessSandbox:
    """See `envs.sandbox.base.Sandbox`. Any number of threads may use it; as many runs as cores go on at once."""

    tier = "subprocess"

    def __init__(self, config: SandboxConfig) -> None:
        if not sys.platform.startswith("linux"):
            raise SandboxError(f"the code sandbox needs Linux (memfd, pidfd, prctl); this is {sys.platform}")
        self.config = config
        # The virtual environment's own interpreter may be a launcher script, and imports site-packages.
        self._interpreter = getattr(sys, "_base_executable", None) or sys.executable
        self._wall_s = max(3 * config.cpu_s, config.cpu_s + 5)
        self._output_bytes = config.output_kb << 10
        self._limits = _rlimits(config)
        # More guests at once than cores would let the wall clock end programs that are within their CPU time.
        self._free_cores = threading.BoundedSemaphore(max(2, len(os.sched_getaffinity(0))))
        try:
            self._home = open_scratch_home(self)
        except OSError as error:
            raise SandboxError(f"the sandbox has no place for its folders: {error}") from error

    def run(self, source: str, stdin: str = "") -> Run:
        """Run a whole program. See `Sandbox.run`."""
        return self._execute(source, stdin, None, [])[0]

    def call(self, source: str, function: str, calls: Sequence[Sequence[Any]]) -> list[CallResult]:
        """Run `source`, then `function(*args)` for each of `calls`, in one process. See `Sandbox.call`.

        The CPU limit is for all calls together. An exception in a call is that call's result; the next calls go on.

        Raises:
            ValueError: an argument is not plain data.
        """
        if not calls:
            return []
        run, answers = self._execute(source, "", function, [tuple(args) for args in calls])
        return _read_results(run, answers, len(calls))

    def _execute(self, source: str, stdin: str, function: str | None, calls: list[Any]) -> tuple[Run, str]:
        try:
            # Version 2 has no references between objects: what one call does to its arguments, no other sees.
            job = marshal.dumps((self._limits, source, function, calls), 2)
        except ValueError as error:
            raise ValueError(f"the arguments for {function} are not plain data: {error}") from error
        try:
            with ExitStack() as stack:
                files = _Files(
                    *(
                        stack.enter_context(_memory_file(content))
                        for content in (job, stdin.encode("utf-8", "surrogatepass"), b"", b"", b"")
                    )
                )
                with self._free_cores, _scratch_folder(self._home) as folder:
                    ended = self._play_out(files, folder)
                return self._judge(ended, files), _read_start(files.results, self._output_bytes)
        except OSError as error:
            raise SandboxError(f"the sandbox could not run a program: {error}") from error

    def _play_out(self, files: _Files, folder: str) -> _Ended:
        """Start the guest, wait until it ends or its time is up, and leave nothing of its process group."""
        job, results = files.job.fileno(), files.results.fileno()
        started = time.monotonic()
        process = subprocess.Popen(
            # Not -I: it implies -E, which would ignore PYTHONHASHSEED and make the order of sets a matter of luck.
            [self._interpreter, "-s", "-S", "-B", str(GUEST), str(job), str(results), str(os.getpid())],
            stdin=files.stdin,
            stdout=files.stdout,
            stderr=files.stderr,
            pass_fds=(job, results),
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        in_time = False
        try:
            in_time = _wait_for_end(process.pid, self._wall_s)
        finally:
            # The leader is not reaped yet, so no other group can have its id.
            os.killpg(process.pid, signal.SIGKILL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        cpu_s = usage.ru_utime + usage.ru_stime
        return _Ended(in_time, process.returncode, cpu_s, time.monotonic() - started)

    def _judge(self, ended: _Ended, files: _Files) -> Run:
        stdout = _read_start(files.stdout, self._output_bytes)
        stderr = _read_tail(files.stderr, STDERR_TAIL_BYTES)
        if os.fstat(files.job.fileno()).st_size:
            raise SandboxError(
                f"a guest could not take its limits (sandbox.memory_mb is {self.config.memory_mb}): "
                f"{_last_line(stderr) or f'exit code {ended.code}'}"
            )
        return Run(
            status=self._status(ended, files, stderr),
            stdout=stdout,
            stderr=stderr,
            cpu_s=ended.cpu_s,
            wall_s=ended.wall_s,
            exit_code=ended.code if ended.code >= 0 else None,
        )

    def _status(self, ended: _Ended, files: _Files, stderr: str) -> RunStatus:
        if not ended.in_time or ended.cpu_s >= self.config.cpu_s or ended.code == -signal.SIGXCPU:
            return "timeout"
        printed = (files.stdout, files.stderr, files.results)
        if any(os.fstat(file.fileno()).st_size > self._output_bytes for file in printed):
            return "output_limit"
        if ended.code == 0:
            return "ok"
        return "oom" if _last_line(stderr).startswith("MemoryError") else "runtime_error"


@dataclass(frozen=True)
class _Files:
    """The memory files of one run."""

    job: FileIO
    stdin: FileIO
    stdout: FileIO
    stderr: FileIO
    results: FileIO


@dataclass(frozen=True)
class _Ended:
    """How a guest ended. `code` is negative for a signal; `in_time` is false if the wall clock had to end it."""

    in_time: bool
    code: int
    cpu_s: float
    wall_s: float


def _rlimits(config: SandboxConfig) -> dict[str, tuple[int, int]]:
    """Name -> (soft, hard), for the guest to set. NPROC is not among them: it counts what else the user runs, so
    verdicts would depend on it, and root is free of it."""
    cpu_s = math.ceil(config.cpu_s)
    # One byte more than may be printed tells a full output from one that was cut.
    file_bytes = (config.output_kb << 10) + 1
    _, hard_stack = resource.getrlimit(resource.RLIMIT_STACK)
    stack = STACK_BYTES if hard_stack == resource.RLIM_INFINITY else min(STACK_BYTES, hard_stack)
    return {
        "RLIMIT_CPU": (cpu_s, cpu_s + 1),  # the hard one is a SIGKILL, for guests that ignore SIGXCPU
        "RLIMIT_AS": (config.memory_mb << 20, config.memory_mb << 20),
        "RLIMIT_FSIZE": (file_bytes, file_bytes),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_NOFILE": (OPEN_FILES, OPEN_FILES),
        "RLIMIT_STACK": (stack, hard_stack),
    }


@contextmanager
def _memory_file(content: bytes) -> Iterator[FileIO]:
    with FileIO(os.memfd_create("winnow"), "r+") as file:
        view = memoryview(content)
        while view:
            view = view[file.write(view) or 0 :]
        file.seek(0)
        yield file


@contextmanager
def _scratch_folder(home: Path) -> Iterator[str]:
    folder = tempfile.mkdtemp(dir=home)
    try:
        yield folder
    finally:
        remove_folder(folder)


def _wait_for_end(pid: int, timeout_s: float) -> bool:
    """Whether the process ended in time. It stays unreaped."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(pidfd)


def _read_start(file: FileIO, size: int) -> str:
    return os.pread(file.fileno(), size, 0).decode("utf-8", "replace")


def _read_tail(file: FileIO, size: int) -> str:
    start = max(0, os.fstat(file.fileno()).st_size - size)
    return os.pread(file.fileno(), size, start).decode("utf-8", "replace")


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def _read_results(run: Run, answers: str, num_calls: int) -> list[CallResult]:
    """One result a call. From the first line on that is missing or malformed, all share the fate of the run."""
    results: list[CallResult] = []
    for line in answers.split("\n")[:-1][:num_calls]:
        with suppress(wire.WireError):
            match wire.loads(line):
                case ["ok", value]:
                    results.append(CallResult("ok", value))
                    continue
                case ["error", str(text)]:
                    results.append(CallResult(_error_status(run, text), error=_printable(text)))
                    continue
        break
    if len(results) < num_calls:
        status = "runtime_error" if run.ok else run.status
        error = _last_line(run.stderr) or "it ended before it answered"
        results += [CallResult(status, error=error if status == "runtime_error" else "")] * (num_calls - len(results))
    return results


def _error_status(run: Run, error: str) -> RunStatus:
    if run.status == "output_limit":
        return "output_limit"
    return "oom" if error.startswith("MemoryError") else "runtime_error"


def _printable(text: str) -> str:
    """Without lone surrogates, which no file could hold."""
    return text.encode("utf-8", "backslashreplace").decode()
