from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from flows.report import main
from tests.tasks.reporting.folders import episode, write_journal


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    def command(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
        return main()

    return command


def test_the_page_lies_in_its_folder_or_where_it_is_wanted(run: Any, tmp_path: Path, capsys: Any) -> None:
    for name in ("a", "b"):
        write_journal(tmp_path / name, "c0", [episode(1), episode(2)])
    assert run(tmp_path / "a") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a' / 'report.html'}\n"
    assert run(tmp_path / "a", tmp_path / "b") == 0
    assert (tmp_path / "a" / "report_against_b.html").exists()
    assert run(tmp_path / "a", "--output", tmp_path / "there" / "x.html") == 0
    assert "2 episodes = 2 solved" in (tmp_path / "there" / "x.html").read_text()


def test_a_folder_without_episodes_is_one_line_and_exit_code_1(run: Any, tmp_path: Path, capsys: Any) -> None:
    assert run(tmp_path / "nowhere") == 1
    assert (
        capsys.readouterr().err
        == f"{tmp_path}/nowhere is not a folder; wanted a data folder such as ./sft_data_math.\n"
    )
