from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from flows.status import main
from tests.tasks.reporting.folders import episode, write_journal


def test_status_lists_what_lies_there_and_says_where_nothing_does(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["status", str(run_folder)])
    assert main() == 1
    assert "wanted where a flow was run" in capsys.readouterr().err
    write_journal(run_folder / "sft_data_math", "c0", [episode(1)])
    (run_folder / "results").mkdir()
    (run_folder / "results" / "one").write_text("x" * 2000)
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "sft_data_math/.episodes/c0" in lines[1]
    assert "1 solved" in lines[1]
    assert "1 of all folders" in lines[2]
    assert lines[2].rstrip().endswith("2.0 kB")
