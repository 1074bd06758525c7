"""When a night went worse than those before it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.dataset.files import write_dataset
from tasks.dataset.nights import success_fall
from tasks.dataset.records import DatasetRef, Funnel, beside
from tasks.dataset.select import Selection
from tasks.dataset.stats import write_stats

FIRST = datetime(2026, 11, 1, 2)


def night(
    folder: Path, number: int, succeeded: int, finished: int = 100, policy: str | None = None, **changes: Any
) -> DatasetRef:
    """The data file of a night of 100 episodes."""
    funnel = Funnel(finished=finished, succeeded=succeeded, errored=0, turns=0, kept=0, kept_by_agent={}, rejected={})
    config: dict[str, Any] = {
        "env": {"name": "math_env"},
        "model": {"path": "starter"},
        "policies": {},
        "collect": {"batch": f"night {number}"},
    }
    when = FIRST + timedelta(days=number)
    dataset = write_dataset(folder, Selection([], [], funnel), config | changes, now=when, policy=policy)
    write_stats(dataset.stats_path, {"episodes": {"success_rate": funnel.success_rate}})
    return dataset


def test_a_fall_is_measured_against_the_mean_of_the_last_seven_nights(tmp_path: Path) -> None:
    night(tmp_path, 0, 100)  # the eighth before: too long ago
    for number in range(1, 8):
        night(tmp_path, number, 40 if number % 2 else 50)
    fall = success_fall(night(tmp_path, 8, 30), 0.1)
    assert fall is not None
    assert fall.nights == 7
    assert fall.usual == pytest.approx((4 * 0.4 + 3 * 0.5) / 7)
    assert fall.text == (
        "math_env: 30.0 % of the episodes of night 8 succeeded, 14.3 points less than in the 7 nights before"
    )


@pytest.mark.parametrize(("succeeded", "max_drop", "fell"), [(40, 0.1, False), (39, 0.1, True), (39, 0.2, False)])
def test_how_far_it_may_fall_is_told(tmp_path: Path, succeeded: int, max_drop: float, fell: bool) -> None:
    night(tmp_path, 1, 50)
    assert (success_fall(night(tmp_path, 2, succeeded), max_drop) is not None) == fell


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"name": "code_env"}},
        {"model": {"path": "another"}},
        {"collect": {"batch": None}},
        {"collect": {"batch": "night 2"}},
        {"policy": "coder"},
        {"finished": 0, "succeeded": 0},
    ],
)
def test_nothing_else_in_the_folder_is_a_night_before(tmp_path: Path, changes: dict[str, Any]) -> None:
    night(tmp_path, 1, **({"succeeded": 90} | changes))
    assert success_fall(night(tmp_path, 2, 10), 0.1) is None


def test_a_collection_on_demand_is_no_night(tmp_path: Path) -> None:
    night(tmp_path, 1, 90)
    assert success_fall(night(tmp_path, 2, 10, collect={"batch": None}), 0.1) is None


def test_damaged_files_of_an_earlier_night_are_no_night(tmp_path: Path) -> None:
    empty, half, without_rate = (night(tmp_path, number, 90) for number in (1, 2, 3))
    beside(empty.path, "_config.yaml").write_text("")
    beside(half.path, "_config.yaml").write_text("collect: {batch: [")
    without_rate.stats_path.write_text('{"episodes": {}}')
    assert success_fall(night(tmp_path, 4, 10), 0.1) is None
