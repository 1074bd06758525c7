"""A tracker that is not there is refused before anything runs."""

from __future__ import annotations

import importlib.util
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
