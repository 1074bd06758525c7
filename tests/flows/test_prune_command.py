"""`python -m flows.prune` as cron runs it, and as somebody at a terminal does."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

from flows.prune import main
from tests.tasks.reporting.folders import episode, write_data_file, write_journal

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where two nights were collected long ago, and a model was trained."""
    folder = tmp_path / "runs"
    for i in range(2):
        write_journal(folder / "sft_data_math", f"night{i}", [episode(i)], batch=str(i))
    write_data_file(folder / "sft_data_math", [episode(1)])
    (folder / "sft_model_math").mkdir()
    for i, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, (1000 + i, 1000 + i))
    results = tmp_path / "prefect" / "storage"
    results.mkdir(parents=True)
    (results / "winnow-train-0").write_text("not a result")
    os.utime(results / "winnow-train-0", (1000, 1000))
    (results / "of-another-project").write_text("x")
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Iterator[Run]:
    """`run("--yes")` gives exit code and output, without a terminal."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["prune", str(folder), *arguments])
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capfd.readouterr()
        return code, said.err + said.out

    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "prefect" / "storage"}):
        yield command


def at_terminal(folder: Path, answer: str, *arguments: str) -> str:
    """What it says to somebody who types `answer`."""
    own = {"PREFECT_HOME": "prefect", "XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state", "PYTHONPATH": str(ROOT)}
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    done = subprocess.run(
        [sys.executable, "-m", "flows.prune", str(folder), *arguments],
        stdin=theirs,
        capture_output=True,
        env=os.environ | {name: str(folder.parent / value) for name, value in own.items()},
        text=True,
        check=True,
    )
    os.close(ours)
    os.close(theirs)
    return done.stdout


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("sft_data_math/.episodes/*"))


def test_without_a_terminal_it_shows_what_would_go_and_deletes_only_with_yes(run: Run, folder: Path) -> None:
    both = left(folder)
    code, said = run()
    assert code == 2
    assert "1 episodes must be played again" in said
    assert "no terminal to ask at; --yes" in said
    assert left(folder) == both
    code, said = run("--yes")
    assert code == 0
    assert left(folder) == ["sft_data_math/.episodes/night1"]
    assert said.splitlines()[-1].startswith("freed ")
    assert "1 of journals, 1 of caches; " in said.splitlines()[-1]
    assert (folder / "sft_model_math").is_dir()
    assert len(list((folder / "sft_data_math").glob("sft_data_*.jsonl"))) == 2
    assert [path.name for path in (folder.parent / "prefect" / "storage").iterdir()] == ["of-another-project"]
    assert run("--yes") == (0, "nothing to delete\n")


def test_at_a_terminal_it_asks_and_takes_no_for_an_answer(folder: Path) -> None:
    both = left(folder)
    said = at_terminal(folder, "\n")
    assert "[y/N]" in said
    assert "nothing is deleted" in said
    assert left(folder) == both
    at_terminal(folder, "y\n", "--only", str(folder / "sft_data_math/.episodes/night1"))
    assert left(folder) == ["sft_data_math/.episodes/night0"]


def test_what_is_not_there_and_what_is_no_kind_or_age_is_refused(run: Run, folder: Path) -> None:
    for arguments, complaint in (
        (["--only", "nowhere"], "nowhere is not among what"),
        (["--what", "models"], "'models' is none of journals, data"),
        (["--older-than", "30"], "found '30'; wanted a number with h, d or w"),
    ):
        code, said = run(*arguments)
        assert code == 2
        assert complaint in said
    folder.rename(folder.with_name("elsewhere"))
    code, said = run()
    assert code == 2
    assert "is not a folder; wanted one where flows were run" in said
