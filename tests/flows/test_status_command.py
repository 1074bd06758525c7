from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

from flows.status import main
from tasks.rollout.plan_request import PlanRequest, note_request
from tests.tasks.reporting.folders import episode, write_journal


def test_status_lists_what_lies_there_and_says_where_nothing_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["status", str(tmp_path)])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "results"}):
        assert main() == 1
        assert "wanted where a flow was run" in capsys.readouterr().err
        write_journal(tmp_path / "sft_data_math", "c0", [episode(1)])
        hashes = [f"{number:016x}" for number in range(1, 8)]
        request = PlanRequest(num_episodes=7, rollouts_per_problem=1, enough_successes=None, problems=hashes)
        note_request(tmp_path / "sft_data_math" / ".episodes" / "c0", request)
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / "winnow-collect-one").write_text("x" * 2000)
        os.utime(tmp_path / "results" / "winnow-collect-one", (1000, 1000))
        assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "sft_data_math/.episodes/c0" in lines[1]
    assert "1 solved; 6 owed" in lines[1]
    assert "1 of all folders, 1 of no use" in lines[2]
    assert "2.0 kB" in lines[2]
    assert lines[3].startswith("0 running; 6 episodes owed; ")
