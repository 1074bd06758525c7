"""A tracker that is not there is refused before anything runs."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tasks.training.progress.trackers import TrackerMissingError, check_trackers, open_trackers, tensorboard_folder
from tests.tasks.training.jobs import job_of


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_with_its_remedy(name: str) -> None:
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(TrackerMissingError, match=rf"{name} is not installed .*pip install -e '\.\[{name}\]'"):
        check_trackers([name])


def test_nobody_is_told_unless_asked_for(tmp_path: Path) -> None:
    check_trackers([])
    assert open_trackers(job_of(tmp_path, tmp_path)) == []


def test_tensorboard_writes_files_beside_the_model_folder(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    (tracker,) = open_trackers(job_of(tmp_path, tmp_path, report_to=["tensorboard"]))
    tracker.begin()
    tracker.tell({"step": 1, "loss": 2.0})
    tracker.end()
    assert list((tensorboard_folder(tmp_path / "out") / "abc123").glob("events.*"))


def test_trackio_keeps_the_losses_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed; it wants an older Pillow than the rest has")
    (tracker,) = open_trackers(job_of(tmp_path, tmp_path, report_to=["trackio"]))
    tracker.begin()
    tracker.tell({"step": 3, "loss": 2.5})
    tracker.end()
    with closing(sqlite3.connect(tmp_path / "trackio" / "winnow.db")) as connection:
        [(name, step, metrics)] = connection.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    assert (name, step, json.loads(metrics)["train/loss"]) == ("out-abc123", 3, 2.5)


def test_wandb_without_a_key_keeps_the_losses_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    pytest.importorskip("wandb", reason="wandb is not installed")
    (tracker,) = open_trackers(job_of(tmp_path, tmp_path, report_to=["wandb"]))
    tracker.begin()
    tracker.tell({"step": 3, "loss": 2.5})
    tracker.end()
    [run] = tmp_path.glob("wandb/offline-run-*/run-abc123.wandb")
    assert b"train/loss" in run.read_bytes()
