"""Which way log records go, in a process of their own; `test_pipeline.py` has one that arrives in the UI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOWS, PREFECT = "import flows", "from prefect import flow"
OUTSIDE = """
{first}
{then}
import logging
from prefect.logging.handlers import APILogHandler
for name in ("tasks", "envs"):
    print(name, sum(isinstance(handler, APILogHandler) for handler in logging.getLogger(name).handlers))
logging.getLogger("tasks.anything").warning("about no run")
"""


@pytest.mark.parametrize("order", [(FLOWS, PREFECT), (PREFECT, FLOWS)], ids=["flows", "prefect"])
def test_records_go_to_the_ui_once_whoever_is_imported_first_and_those_of_no_run_warn_nobody(
    order: tuple[str, str], tmp_path: Path
) -> None:
    first, then = order
    code = OUTSIDE.format(first=first, then=then)
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path)},
        cwd=tmp_path,  # where no pyproject.toml says anything
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["tasks 1", "envs 1"]
    assert "about no run" in done.stderr
    assert "flow run id" not in done.stderr


def test_a_form_of_logs_that_does_not_exist_is_told_in_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WINNOW_LOG": "xml"}
    done = subprocess.run([sys.executable, "-c", "import flows"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == "WINNOW_LOG: found 'xml'; wanted json or json:FILE, so it is left as it is\n"


def test_a_log_file_that_cannot_be_written_is_one_line_and_no_run_fails_for_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import flows"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "WINNOW_LOG": f"json:{tmp_path}/none/x.jsonl"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == (
        f"WINNOW_LOG: {tmp_path}/none/x.jsonl cannot be written (No such file or directory), so logs stay as they are\n"
    )
