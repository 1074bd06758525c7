"""`python -m flows.<flow>` as a user meets it: exit codes, one line, no traceback."""

from __future__ import annotations

import subprocess
import sys
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
