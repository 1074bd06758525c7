r"""Final answers: what stands in \boxed{}, and whether it equals the reference."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from envs.grading.math_answer import extract_answer, is_equivalent
from envs.sandbox.base import SandboxError


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"so \boxed{85}.", "85"),
        (r"\boxed{1} no, \boxed{ 2 }", "2"),
        (r"$\boxed{\frac{1}{2}}$ {", r"\frac{1}{2}"),
        (r"\boxed {3}", "3"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\text{no \} here}}", r"\text{no \} here}"),
        (r"} \boxed{\boxed{5}}", "5"),
        (r"\boxed{5} and cut off: \boxed{6", "5"),
        (r"\boxed{}", ""),
        ("\\boxed{a\nb}", "a\nb"),
        (r"\boxed{6", None),
        (r"\boxed 6", None),
        ("the answer is 6", None),
        ("", None),
    ],
)
def test_the_last_balanced_box_is_the_answer(reply: str, answer: str | None) -> None:
    assert extract_answer(reply) == answer


@pytest.mark.parametrize(
    "reply", ["\\boxed{" * 100_000, "{" * 500_000, "\\boxed{" * 50_000 + "}" * 50_000, "\\" * 500_000]
)
def test_a_hostile_reply_is_read_in_linear_time(reply: str) -> None:
    started = time.process_time()
    extract_answer(reply)
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("85", "85"),
        ("$85$", "85"),
        ("85.", "85"),
        ("85.0", "85"),
        ("1,000", "1000"),
        ("x = 85", "85"),
        (r"85 \text{ apples}", "85"),
        ("1/2", r"\frac{1}{2}"),
        ("0.5", r"\frac{1}{2}"),
        (r"\dfrac12", "1/2"),
        (r"2\frac{1}{2}", "5/2"),
        (r"\frac{2}{\sqrt{2}}", r"\sqrt{2}"),
        ("1 + x^2", "x^2+1"),
        (r"\{2, 1\}", r"\{1,2\}"),
        ("(1, 2)", "(1,2)"),
        ("-3", "-3"),
    ],
)
def test_answers_that_are_equivalent(answer: str, gold: str) -> None:
    assert is_equivalent(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("84", "85"),
        ("-85", "85"),
        ("84 or 85", "85"),
        ("84, 85", "85"),
        ("80 5", "85"),
        ("80\n5", "85"),
        (r"85} \boxed{85", "85"),
        ("85{", "85"),
        ("0.33", "1/3"),
        ("x > 3", "85"),
        ("[80, 90]", "85"),
        (r"85 \pm 1", "85"),
        ("hello", "85"),
        ("", "85"),
        ("85", ""),
        ("", ""),
        ("\x0085", "85"),
        ("85\udcff", "85"),
        ("{" * 100_000, "85"),
        ("{" * 50_000 + "85" + "}" * 50_000, "85"),
        ("1" * 100_000, "85"),
        ("__import__('os')._exit(0)", "85"),
        (r"\frac{1}{0}", "85"),
    ],
)
def test_answers_that_are_not_equivalent(answer: str, gold: str) -> None:
    assert not is_equivalent(answer, gold)


@pytest.mark.parametrize("bomb", ["9^{9^{9^{9}}}", "9**9**9**9", "(" * 300 + "1" + ")" * 300, "9" * 6 + "!!"])
def test_a_bomb_on_either_side_is_bounded_and_wrong(bomb: str) -> None:
    started = time.monotonic()
    assert not is_equivalent(bomb, "1/7", timeout_s=0.5)
    assert not is_equivalent("1/7", bomb, timeout_s=0.5)
    assert time.monotonic() - started < 15  # two starts of a worker, and two timeouts
    assert is_equivalent("2/14", "1/7")


def test_many_threads_get_right_verdicts_from_two_workers_while_one_sets_off_bombs() -> None:
    def bomb(_: int) -> bool:
        return is_equivalent("9^{9^{9^{9}}}", "1/7", timeout_s=0.5)

    def honest(i: int) -> tuple[bool, bool]:
        return is_equivalent(f"{2 * i}/14", f"{i}/7"), is_equivalent(f"{2 * i + 1}/14", f"{i}/7")

    with ThreadPoolExecutor(9) as pool:
        bombs = pool.map(bomb, range(3))
        assert list(pool.map(honest, range(40))) == [(True, False)] * 40
        assert list(bombs) == [False] * 3
    assert len(workers_of(os.getpid())) <= 2


def test_answers_that_come_together_start_one_worker_and_a_second_where_one_is_busy_for_long() -> None:
    script = (
        "import time; from concurrent.futures import ThreadPoolExecutor\n"
        "from envs.grading.math_answer import is_equivalent\n"
        "pool = ThreadPoolExecutor(4)\n"
        "print(all(pool.map(lambda i: is_equivalent(f'{2 * i}/14', f'{i}/7'), range(1, 20))), flush=True); input()\n"
        "slow = pool.submit(is_equivalent, '9^{9^{9^{9}}}', '1/7', 20.0)\n"
        "time.sleep(0.5)\n"
        "print(is_equivalent('2/14', '1/7'), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as host:
        assert host.stdin and host.stdout
        try:
            for num_workers in (1, 2):
                assert host.stdout.readline() == "True\n"
                assert len(workers_of(host.pid)) == num_workers
                host.stdin.write("\n")
                host.stdin.flush()
        finally:
            host.kill()


def test_a_worker_that_was_killed_is_replaced() -> None:
    assert is_equivalent("2/14", "1/7")
    for pid in workers_of(os.getpid()):
        os.kill(pid, 9)
    assert is_equivalent("2/14", "1/7")


def test_a_worker_that_is_killed_again_and_again_is_no_verdict() -> None:
    done = threading.Event()

    def kill_all() -> None:
        while not done.is_set():
            for pid in workers_of(os.getpid()):
                os.kill(pid, 9)
            time.sleep(0.02)

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(SandboxError, match="code -9"):
            is_equivalent("9^{9^{9^{9}}}", "1/7", timeout_s=60)
    finally:
        done.set()
        killer.join()
    assert is_equivalent("2/14", "1/7")


def test_grading_needs_no_file_of_this_project_on_the_path_and_leaves_no_process(tmp_path: Path) -> None:
    script = (
        "from envs.grading.math_answer import is_equivalent\n"
        "import os, threading\n"
        "thread = threading.Thread(target=lambda: print(is_equivalent('2/14', '1/7')))\n"
        "thread.start(); thread.join(); print(os.getpid())"
    )
    root = Path(__file__).resolve().parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{script}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    verdict, pid = ended.stdout.split()
    assert (verdict, ended.stderr, workers_of(int(pid))) == ("True", "", [])


def test_a_worker_ends_when_its_host_is_killed() -> None:
    script = (
        "import time; from envs.grading.math_answer import is_equivalent\n"
        "is_equivalent('2/14', '1/7'); print('ready', flush=True); time.sleep(60)"
    )
    host = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert host.stdout and host.stdout.readline() == b"ready\n"
        (worker,) = workers_of(host.pid)
    finally:
        host.kill()
        host.wait()
        if host.stdout:
            host.stdout.close()
    deadline = time.monotonic() + 5
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(worker)


def workers_of(host_pid: int) -> list[int]:
    """Process ids of the live math workers that a process started."""
    return [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and parent_of(int(folder.name)) == host_pid and "math_worker" in command_of(folder)
    ]


def command_of(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_text()
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
