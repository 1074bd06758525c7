"""`python -m flows.<flow>` as a user meets it: exit codes, one line, no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOWS = ["collect_and_train", "collect_only", "train_only", "quick_test", "evaluate_only"]


def command(flow: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"flows.{flow}", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("flow", FLOWS)
def test_help_shows_every_section_defaults_bounds_and_examples(flow: str) -> None:
    done = command(flow, "--help")
    assert done.returncode == 0
    assert not done.stderr
    for part in (f"usage: python -m flows.{flow}", "collect: ", "--train.lora_r INT", "at least 1", "examples:"):
        assert part in done.stdout


def test_help_shows_the_flows_own_defaults() -> None:
    assert "[starter]" in command("quick_test", "--help").stdout
    assert "[Qwen/Qwen3-1.7B]" in command("collect_only", "--help").stdout


def test_help_tells_how_a_table_is_typed() -> None:
    page = command("collect_only", "--help").stdout
    assert "--collect.by_role.KEY.KEY VALUE" in page
    assert "--collect.agent_ratios.KEY VALUE" in page


def test_help_and_mistakes_do_not_wait_for_heavy_imports() -> None:
    program = (
        "import sys, runpy; sys.argv = ['x', {!r}]\n"
        "try: runpy.run_module('flows.quick_test', run_name='__main__')\n"
        "except SystemExit: print({{'prefect', 'torch', 'transformers', 'pandas'}} & set(sys.modules))"
    )
    for argument in ("--help", "--nonsense"):
        done = subprocess.run(
            [sys.executable, "-c", program.format(argument)], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.splitlines()[-1] == "set()"


def test_a_wrong_command_ends_with_2_and_one_line() -> None:
    done = command("collect_only", "--collect.num_episodes", "0")
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr == "collect.num_episodes: found '0', but it should be greater than or equal to 1\n"


def test_a_failure_inside_a_flow_ends_with_1_and_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.collect_only", "--model.path", "/nope"],
        cwd=ROOT,
        env=with_own_server(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "/nope" in done.stderr


def test_a_run_that_is_killed_leaves_no_server(tmp_path: Path) -> None:
    line = ["-m", "flows.collect_only", "--env.name", "math_env", "--model.path", "starter"]
    run = subprocess.Popen(
        [sys.executable, *line, "--collect.num_episodes", "2000", "--collect.data_dir", str(tmp_path / "data")],
        cwd=ROOT,
        env=with_own_server(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: (tmp_path / "data").exists(), 120)  # the flow has begun
        assert servers(tmp_path)
    finally:
        run.kill()
        run.wait()
    wait_until(lambda: not servers(tmp_path), 20)


def test_ctrl_c_in_the_terminal_ends_with_one_line_that_says_how_to_resume(tmp_path: Path) -> None:
    line = ["-m", "flows.collect_only", "--env.name", "math_env", "--model.path", "starter"]
    run = subprocess.Popen(
        [sys.executable, *line, "--collect.num_episodes", "2000", "--collect.data_dir", str(tmp_path / "data")],
        cwd=ROOT,
        env=with_own_server(tmp_path) | {"WINNOW_LOG": f"json:{tmp_path / 'log.jsonl'}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the signal below reaches all its processes, as a terminal's does
    )
    try:
        wait_until(lambda: list((tmp_path / "data").glob(".episodes/*/shard-0000.jsonl")), 120)
        wait_until(lambda: "2000 episodes are owed" in (tmp_path / "log.jsonl").read_text(), 30)
        os.killpg(run.pid, signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(
        "Interrupted. Finished work is kept; to resume: python -m flows.collect_only"
    )
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (begun,) = (record for record in logged if "2000 episodes are owed" in record["message"])
    (journal,) = (tmp_path / "data" / ".episodes").iterdir()
    assert begun["collection"] == journal.name
    assert uuid.UUID(begun["flow_run"])
    wait_until(lambda: not servers(tmp_path), 20)


def with_own_server(home: Path) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**environment, "PREFECT_HOME": str(home)}


def servers(home: Path) -> list[int]:
    """The live Prefect servers whose database is in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command_line, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:  # ended, or another user's
            continue
        if b"prefect.server.api.server" in command_line and f"PREFECT_HOME={home}\0".encode() in environment:
            found.append(int(process.name))
    return found


def wait_until(holds: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
