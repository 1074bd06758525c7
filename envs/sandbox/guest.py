"""The first code of every guest process: takes its limits upon itself, then runs the untrusted source.

Run as a script by the host (`subprocess_sandbox.py`), never imported: `guest.py JOB_FD RESULTS_FD HOST_PID`.

In:  the job, marshalled (its writer is trusted): `(limits, source, function, calls)`; no function: a whole program.
Out: the job's file is emptied once the limits hold, which is how the host tells a broken sandbox from a broken program.
     In RESULTS_FD one line a call, `["ok", value]` or `["error", text]`, written before the next call starts.
"""

from __future__ import annotations

import builtins
import marshal
import os
import resource
import sys

# Every run pays for these imports, so: no ctypes, signal, types or typing, which cost 1 to 3 ms each.
from _ctypes import call_function, dlopen, dlsym

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType, TracebackType
    from typing import Any

PR_SET_PDEATHSIG = 1
SIGKILL = 9
PROGRAM = "<program>"


def main() -> None:
    job_fd, results_fd, host_pid = map(int, sys.argv[1:])
    with open(job_fd, "rb", closefd=False) as job_file:
        limits, source, function, calls = marshal.load(job_file)
    die_with_host(host_pid)
    for name, (soft, hard) in limits.items():
        resource.setrlimit(getattr(resource, name), (soft, hard))
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # as the site module, which is not loaded, would
    if function is None:
        sys.path.pop(0)
        os.close(results_fd)
        run_source(source, make_program_module("__main__"), job_fd)
        return
    import wire  # type: ignore[import-not-found]  # this file's neighbour: the script's folder is sys.path[0]

    sys.path.pop(0)
    module = make_program_module("program")
    run_source(source, module, job_fd)
    answer_calls(wire, module, function, calls, results_fd)
    os._exit(0)  # threads and exit handlers of the guest have nothing left to say


def die_with_host(host_pid: int) -> None:
    """Be killed when the host's thread that waits for this run is gone."""
    own_libraries: Any = None
    call_function(dlsym(dlopen(own_libraries, os.RTLD_NOW), "prctl"), (PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
    if os.getppid() != host_pid:
        os._exit(1)


def make_program_module(name: str) -> ModuleType:
    module = type(sys)(name)
    sys.modules[name] = module
    sys.argv = [PROGRAM]
    return module


def run_source(source: str, module: ModuleType, job_fd: int) -> None:
    sys.excepthook = print_without_this_file
    os.ftruncate(job_fd, 0)
    os.close(job_fd)
    exec(compile(source, PROGRAM, "exec", dont_inherit=True), module.__dict__)


def print_without_this_file(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


def answer_calls(wire: Any, module: ModuleType, function: str, calls: list[tuple[Any, ...]], results_fd: int) -> None:
    for args in calls:
        try:
            line = f'["ok", {wire.dumps(getattr(module, function)(*args))}]'
        except BaseException as error:  # SystemExit and the like are answers too
            line = f'["error", {wire.dumps(describe(error))}]'
        os.write(results_fd, line.encode() + b"\n")


def describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:1000]
    except Exception:  # its __str__ is the guest's own code
        return type(error).__name__


main()
