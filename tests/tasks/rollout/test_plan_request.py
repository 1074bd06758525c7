from __future__ import annotations

from pathlib import Path

import pytest

from tasks.rollout.episode import EpisodeKey
from tasks.rollout.plan import due_slots
from tasks.rollout.plan_request import note_request, read_request
from tests.tasks.rollout.test_collection import PROBLEMS, collection


@pytest.mark.parametrize(("count", "rollouts", "enough"), [(7, 2, None), (50, 2, None), (16, 4, 2), (30, 3, 1)])
def test_what_is_due_can_be_told_from_the_hashes_that_may_come_up(
    tmp_path: Path, count: int, rollouts: int, enough: int | None
) -> None:
    note_request(tmp_path, collection(count, rollouts, enough).request)
    outcomes: dict[EpisodeKey, bool | None] = {}
    while True:
        due = [slot.key for slot in due_slots(PROBLEMS, count, rollouts, enough, outcomes)]
        assert read_request(tmp_path).due(outcomes) == due
        played = [key for key in due if key not in outcomes][:3]
        if not played:
            return
        outcomes |= {key: int(key.problem_hash, 16) % 3 == 0 for key in played}


def test_what_was_never_written_down_or_is_damaged_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"wrote no request\.json"):
        read_request(tmp_path)
    (tmp_path / "request.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        read_request(tmp_path)
