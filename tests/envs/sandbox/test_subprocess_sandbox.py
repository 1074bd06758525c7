"""The plain subprocess sandbox: honest programs, programs that overstep a limit, and what a run leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from envs.sandbox import open_sandbox
from envs.sandbox.base import Sandbox, SandboxConfig, SandboxError


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return open_sandbox(SandboxConfig(cpu_s=1, memory_mb=256, output_kb=64))


@pytest.fixture
def scratch_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where sandboxes make their folders, for this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path


@pytest.fixture
def home(scratch_root: Path) -> tuple[Sandbox, Path]:
    """A new sandbox and the folder where its runs make theirs."""
    sandbox = open_sandbox(SandboxConfig(cpu_s=1, memory_mb=256, output_kb=64))
    (root,) = scratch_root.iterdir()
    (folder,) = root.iterdir()
    return sandbox, folder


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until_dead(pid: int, timeout_s: float = 3) -> bool:
    deadline = time.monotonic() + timeout_s
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


# Honest programs


def test_a_program_reads_stdin_and_prints(sandbox: Sandbox) -> None:
    run = sandbox.run("print(sum(map(int, input().split())))", "2 3\n")
    assert (run.status, run.stdout, run.stderr, run.exit_code) == ("ok", "5\n", "", 0)
    assert 0 < run.cpu_s < 1 and 0 < run.wall_s < 6


def test_a_program_runs_as_main_and_may_call_exit(sandbox: Sandbox) -> None:
    run = sandbox.run("if __name__ == '__main__':\n    print('here')\n    exit()\nprint('not here')")
    assert (run.status, run.stdout) == ("ok", "here\n")


def test_dataclasses_and_deep_recursion_work(sandbox: Sandbox) -> None:
    source = """
from __future__ import annotations
import sys
from dataclasses import dataclass
sys.setrecursionlimit(100_000)
@dataclass
class Point:
    x: int
def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)
print(Point(depth(50_000)))
"""
    assert sandbox.run(source).stdout == "Point(x=50000)\n"


def test_sets_come_in_the_same_order_in_every_run(sandbox: Sandbox) -> None:
    orders = {sandbox.run("print(list({'a', 'b', 'c', 'd', 'e'}))").stdout for _ in range(5)}
    assert len(orders) == 1


def test_output_that_is_not_text_is_replaced_and_not_an_error(sandbox: Sandbox) -> None:
    run = sandbox.run(r"import sys; sys.stdout.buffer.write(b'\xff\x00ok')")
    assert (run.status, run.stdout) == ("ok", "\ufffd\x00ok")


@pytest.mark.parametrize("stdin", ["", "\udcff\x00", "x" * 300_000])
def test_any_stdin_reaches_the_program(sandbox: Sandbox, stdin: str) -> None:
    run = sandbox.run("import sys; print(len(sys.stdin.buffer.read()))", stdin)
    assert run.stdout == f"{len(stdin.encode('utf-8', 'surrogatepass'))}\n"


def test_output_of_exactly_the_limit_is_whole(sandbox: Sandbox) -> None:
    run = sandbox.run("import sys; sys.stdout.write('x' * 65536)")
    assert (run.status, len(run.stdout)) == ("ok", 65536)


# Programs that fail


@pytest.mark.parametrize(
    ("source", "exit_code", "last_line"),
    [
        ("1/0", 1, "ZeroDivisionError: division by zero"),
        ("def f(:", 1, "SyntaxError: invalid syntax"),
        ("x = '\\0'\n\0", 1, "source code string cannot contain null bytes"),
        ("print('\udcff')", 1, "surrogates not allowed"),
        ("raise SystemExit(3)", 3, ""),
        ("import os; os._exit(7)", 7, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", None, ""),
        ("import ctypes; ctypes.string_at(0)", None, ""),
        ("(" * 20_000, 1, "SyntaxError: too many nested parentheses"),
    ],
)
def test_a_program_that_fails_is_a_runtime_error(
    sandbox: Sandbox, source: str, exit_code: int | None, last_line: str
) -> None:
    run = sandbox.run(source)
    assert (run.status, run.exit_code) == ("runtime_error", exit_code)
    assert last_line in run.stderr


def test_a_traceback_shows_the_program_alone(sandbox: Sandbox) -> None:
    stderr = sandbox.run("def f():\n    1/0\nf()").stderr
    assert stderr.count("File") == 2 and "guest.py" not in stderr and 'File "<program>", line 2, in f' in stderr


def test_right_output_before_a_crash_is_still_a_failure(sandbox: Sandbox) -> None:
    run = sandbox.run("print(5, flush=True); raise ValueError")
    assert (run.status, run.stdout) == ("runtime_error", "5\n")


# Programs that overstep a limit


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import signal\nfor s in (2, 14, 15, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "import re; re.match('(a+)+$', 'a' * 64 + 'b')",
    ],
)
def test_a_busy_program_runs_out_of_cpu_time(sandbox: Sandbox, source: str) -> None:
    run = sandbox.run(source)
    assert run.status == "timeout"
    assert run.cpu_s < 3


def test_programs_that_wait_run_out_of_wall_time() -> None:
    sandbox = open_sandbox(SandboxConfig(cpu_s=0.2))
    sources = [
        "import time; time.sleep(60)",
        "import os; os.kill(os.getpid(), 19)  # SIGSTOP",
        "import os, time\nif os.fork() == 0: time.sleep(60)\nos.wait()",
    ]
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(sandbox.run, sources))
    assert [run.status for run in runs] == ["timeout"] * 3
    assert all(5 < run.wall_s < 10 for run in runs)


@pytest.mark.parametrize(
    "source",
    [
        "while True: print('x' * 1000)",
        "import sys\nwhile True: sys.stderr.write('x' * 1000)",
        "print('x' * 10_000_000)",
    ],
)
def test_an_output_bomb_stops_at_the_limit(sandbox: Sandbox, source: str) -> None:
    run = sandbox.run(source)
    assert run.status == "output_limit"
    assert len(run.stdout) <= 65536 and len(run.stderr) <= 4096


@pytest.mark.parametrize("source", ["x = bytearray(10**10)", "x = []\nwhile True: x.append(bytearray(10**6))"])
def test_a_memory_bomb_is_out_of_memory(sandbox: Sandbox, source: str) -> None:
    assert sandbox.run(source).status == "oom"


def test_a_file_cannot_grow_past_the_output_limit(sandbox: Sandbox) -> None:
    run = sandbox.run("open('big', 'wb').truncate(10**12)")
    assert run.status == "runtime_error" and "File too large" in run.stderr


# What a run sees, and what it leaves


def test_the_environment_of_the_host_is_not_seen(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_TEST_SECRET", "s3cr3t-value")
    run = sandbox.run("import os; print(dict(os.environ)); print(open('/proc/self/environ').read())")
    assert run.ok and "LANG" in run.stdout
    assert "s3cr3t-value" not in run.stdout


def test_a_program_sees_no_file_of_the_host_and_no_descriptor(sandbox: Sandbox) -> None:
    held = [os.memfd_create("host", 0) for _ in range(3)]
    for fd in held:
        os.set_inheritable(fd, True)
    try:
        run = sandbox.run(
            "import os, sys; print(os.listdir(), [f for f in os.listdir('/proc/self/fd')], sys.argv, sys.path)"
        )
    finally:
        for fd in held:
            os.close(fd)
    listing = run.stdout
    assert listing.startswith("[] ['0', '1', '2', '3'] ['<program>']")  # 3 is the listing's own
    assert "winnow" not in listing and "envs" not in listing


def test_a_child_left_behind_is_killed(sandbox: Sandbox) -> None:
    source = "import os, time\npid = os.fork()\nif pid == 0:\n    time.sleep(60)\nprint(pid)"
    run = sandbox.run(source)
    assert run.ok
    assert wait_until_dead(int(run.stdout))


def test_a_fork_bomb_is_killed_whole(sandbox: Sandbox) -> None:
    source = "import os\nfor _ in range(6): os.fork()\nprint(os.getpid(), flush=True)\nwhile True: pass"
    run = sandbox.run(source)
    assert run.status == "timeout"
    pids = run.stdout.split()
    assert len(pids) > 1
    assert all(wait_until_dead(int(pid)) for pid in pids)


def test_the_folder_of_a_run_is_empty_and_removed(home: tuple[Sandbox, Path]) -> None:
    sandbox, folder = home
    run = sandbox.run("import os, tempfile; print(os.getcwd(), os.listdir()); open('f', 'w'); tempfile.mkdtemp()")
    where, listed = run.stdout.split()
    assert (Path(where).parent, listed) == (folder, "[]")
    assert list(folder.iterdir()) == []


def test_even_a_very_deep_folder_is_removed(home: tuple[Sandbox, Path]) -> None:
    sandbox, folder = home
    run = sandbox.run("import os\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')")
    assert run.ok
    assert list(folder.iterdir()) == []


MIXED = {
    "print(1)": "ok",
    "1/0": "runtime_error",
    "import os; os.fork()": "ok",
    "import sys; sys.exit(3)": "runtime_error",
    "print('x' * 100_000)": "output_limit",
}


def test_fifty_runs_from_four_threads_leave_no_descriptor_and_no_folder(home: tuple[Sandbox, Path]) -> None:
    sandbox, folder = home
    before = sorted(Path("/proc/self/fd").iterdir())
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(sandbox.run, list(MIXED) * 10))
    assert [run.status for run in runs] == list(MIXED.values()) * 10
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert list(folder.iterdir()) == []


def test_runs_leave_no_child_unreaped() -> None:
    # In a host of its own, where waiting for any child cannot take one from another test.
    script = (
        "import os; from envs.sandbox import open_sandbox; from envs.sandbox.base import SandboxConfig\n"
        f"sandbox = open_sandbox(SandboxConfig(output_kb=64))\nfor source in {list(MIXED)!r}: sandbox.run(source)\n"
        "try: print(os.waitpid(-1, 0))\nexcept ChildProcessError: print('none')"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "none\n", ended.stderr


def test_a_run_dies_with_its_host() -> None:
    script = (
        "from envs.sandbox import open_sandbox; from envs.sandbox.base import SandboxConfig\n"
        "import sys; open_sandbox(SandboxConfig(cpu_s=100)).run(sys.argv[1])"
    )
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder, "pid")
        source = f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()) + '.')\ntime.sleep(60)"
        host = subprocess.Popen([sys.executable, "-c", script, source], env={**os.environ, "TMPDIR": folder})
        try:
            deadline = time.monotonic() + 30
            while not (note.exists() and note.read_text().endswith(".")) and time.monotonic() < deadline:
                time.sleep(0.02)
            guest = int(note.read_text().rstrip("."))
            assert is_alive(guest)
        finally:
            host.send_signal(signal.SIGKILL)
            host.wait()
        assert wait_until_dead(guest)


HOST = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from envs.sandbox import open_sandbox
from envs.sandbox.base import SandboxConfig
sandbox = open_sandbox(SandboxConfig(cpu_s=100))
with ThreadPoolExecutor(8) as pool:
    list(pool.map(sandbox.run, ["open('f', 'w'); import time; time.sleep(float(%r))" % sys.argv[1]] * 8))
"""


def test_what_a_killed_host_left_is_swept_and_what_a_live_one_has_is_not(scratch_root: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(scratch_root)}
    hosts = [subprocess.Popen([sys.executable, "-c", HOST, "60"], env=environment) for _ in range(2)]
    root = scratch_root / f"winnow-sandbox-{os.getuid()}"
    try:
        deadline = time.monotonic() + 30
        while len({path.parts[-3] for path in root.glob("*/*/f")}) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        hosts[0].send_signal(signal.SIGKILL)
        hosts[0].wait()
        dead, live = (next(root.glob(f"{host.pid}-*")) for host in hosts)
        assert 1 <= len(list(dead.iterdir())) <= max(2, len(os.sched_getaffinity(0)))
        sandbox = open_sandbox(SandboxConfig())
        assert not dead.exists()
        assert list(live.glob("*/f"))
        assert len(list(root.iterdir())) == 2
        del sandbox
        assert list(root.iterdir()) == [live]
    finally:
        for host in hosts:
            host.kill()
            host.wait()


def test_a_host_that_ends_leaves_nothing(scratch_root: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(scratch_root)}
    subprocess.run([sys.executable, "-c", HOST, "0"], env=environment, check=True, timeout=60)
    (root,) = scratch_root.iterdir()
    assert list(root.iterdir()) == []
    assert root.stat().st_mode & 0o777 == 0o700


def test_a_root_that_others_may_open_is_refused(scratch_root: Path) -> None:
    (scratch_root / f"winnow-sandbox-{os.getuid()}").mkdir(mode=0o755)
    with pytest.raises(SandboxError, match="must belong to this user alone"):
        open_sandbox(SandboxConfig())


def test_a_sandbox_that_cannot_start_is_no_verdict(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_base_executable", "/nonexistent/python")
    with pytest.raises(SandboxError, match="/nonexistent/python"):
        open_sandbox(SandboxConfig()).run("print(1)")
    monkeypatch.setattr(sys, "_base_executable", "/bin/false")
    with pytest.raises(SandboxError, match="could not take its limits"):
        open_sandbox(SandboxConfig()).run("print(1)")


def test_a_run_costs_little_more_than_a_bare_interpreter(sandbox: Sandbox) -> None:
    bare = [getattr(sys, "_base_executable", sys.executable), "-s", "-S", "-B", "-c", "print(1)"]
    bare_s, run_s = [], []
    for _ in range(15):  # in turns, so that other load falls on both
        bare_s.append(seconds_of(lambda: subprocess.run(bare, capture_output=True)))
        run_s.append(seconds_of(lambda: sandbox.run("print(1)")))
    assert min(run_s) < 3 * min(bare_s)


def seconds_of(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
