"""Nothing of a kept process is left, whoever ends it and however."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.engines.vllm import kept_process
from tasks.engines.vllm.kept_process import KeptProcess

FAMILY = """
import os, signal, subprocess, sys, time
if len(sys.argv) > 2:  # a grandchild, in a session of its own and deaf to what is asked of it
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
    time.sleep(600)
child = subprocess.Popen([sys.executable, *sys.argv, "child"], start_new_session=True)
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
time.sleep(600)
"""
"""A program with a child that has a session of its own. Both write their pids to a file."""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def family_in(folder: Path) -> list[str]:
    (folder / "family.py").write_text(FAMILY)
    return [sys.executable, str(folder / "family.py"), str(folder / "pids")]


def pids_in(folder: Path) -> list[int]:
    wait_until(lambda: (folder / "pids").exists() and len((folder / "pids").read_text().splitlines()) == 2)
    return [int(line) for line in (folder / "pids").read_text().splitlines()]


def test_stopping_ends_grandchildren_that_left_the_session_and_do_not_listen(tmp_path: Path) -> None:
    async def run() -> list[int]:
        process = await KeptProcess.start(family_in(tmp_path), os.environ, tmp_path / "log")
        pids = await asyncio.to_thread(pids_in, tmp_path)
        await process.stop()
        await process.stop()
        assert process.returncode == 128 + signal.SIGTERM
        return pids

    assert not any(is_alive(pid) for pid in asyncio.run(run()))


def test_who_no_longer_waits_for_a_stop_leaves_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_process, "GRACE_S", 1.0)
    deaf = ["bash", "-c", "trap '' TERM; setsid sleep 600 & echo $!; wait; wait; sleep 600"]

    async def run() -> KeptProcess:
        process = await KeptProcess.start(deaf, os.environ, tmp_path / "log", ["echo", "over"])
        await asyncio.to_thread(wait_until, lambda: (tmp_path / "log").read_text().endswith("\n"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await process.stop()
        assert process.returncode is None
        return process

    process = asyncio.run(run())  # the end of its event loop must not kill the keeper either
    wait_until(lambda: process.returncode is not None)
    [pid, over] = (tmp_path / "log").read_text().split()
    assert (is_alive(int(pid)), over) == (False, "over")


def test_a_process_that_nobody_holds_any_more_ends(tmp_path: Path) -> None:
    async def run() -> None:
        kept = await KeptProcess.start(family_in(tmp_path), os.environ, tmp_path / "log")
        await asyncio.to_thread(pids_in, tmp_path)
        del kept

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # by the standard library, which cannot know the keeper
        asyncio.run(run())
        gc.collect()
    wait_until(lambda: not any(is_alive(pid) for pid in pids_in(tmp_path)))


def test_a_command_that_dies_takes_its_children_along(tmp_path: Path) -> None:
    async def run() -> None:
        process = await KeptProcess.start(family_in(tmp_path), os.environ, tmp_path / "log")
        pids = await asyncio.to_thread(pids_in, tmp_path)
        parent = next(pid for pid in pids if b"child" not in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(parent, signal.SIGKILL)
        assert await process.wait() == 128 + signal.SIGKILL
        assert not any(is_alive(pid) for pid in pids)

    asyncio.run(run())


def owner_of(folder: Path) -> subprocess.Popen[bytes]:
    """Another Python process that keeps the family."""
    program = f"""
        import asyncio, os
        from pathlib import Path
        from tasks.engines.vllm.kept_process import KeptProcess

        async def run():
            kept = await KeptProcess.start({family_in(folder)!r}, os.environ, Path({str(folder / "log")!r}))
            await asyncio.sleep(600)

        asyncio.run(run())
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=Path(__file__).parents[4])


def test_killing_the_owner_leaves_nothing(tmp_path: Path) -> None:
    owner = owner_of(tmp_path)
    pids = pids_in(tmp_path)
    owner.kill()
    owner.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_a_keeper_that_is_killed_takes_the_command_along_and_stop_finds_the_rest(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os, time; os.fork(); print(os.getpid(), flush=True); time.sleep(600)"]

    async def run() -> None:
        process = await KeptProcess.start(command, os.environ, tmp_path / "log")
        await asyncio.to_thread(wait_until, lambda: len((tmp_path / "log").read_text().split()) == 2)
        pids = [int(pid) for pid in (tmp_path / "log").read_text().split()]
        os.kill(process._keeper.pid, signal.SIGKILL)
        assert await process.wait() < 0
        await process.stop()
        await asyncio.to_thread(wait_until, lambda: not any(is_alive(pid) for pid in pids))

    asyncio.run(run())


def test_the_last_command_is_run_when_all_is_over_and_the_log_has_what_was_said(tmp_path: Path) -> None:
    async def run() -> int:
        at_end = [sys.executable, "-c", "print('over', flush=True)"]
        process = await KeptProcess.start(
            [sys.executable, "-c", "print('said'); raise SystemExit(7)"], os.environ, tmp_path / "log", at_end
        )
        return await process.wait()

    assert asyncio.run(run()) == 7
    assert (tmp_path / "log").read_text().split() == ["said", "over"]


def test_a_command_that_does_not_exist_is_told_in_the_log(tmp_path: Path) -> None:
    async def run() -> int:
        return await (await KeptProcess.start(["/no/such/program"], os.environ, tmp_path / "log")).wait()

    assert asyncio.run(run()) == 1
    assert "No such file or directory: '/no/such/program'" in (tmp_path / "log").read_text()
