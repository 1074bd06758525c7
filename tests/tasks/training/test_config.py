"""What the settings of a training are, however they are written."""

from __future__ import annotations

from tasks.training.config import TrainConfig


def test_names_of_data_files_may_have_spaces_between_them() -> None:
    assert TrainConfig(data_path="a.jsonl, b c.jsonl").data_path == ["a.jsonl", "b c.jsonl"]
    assert TrainConfig(data_path="a.jsonl").data_path == "a.jsonl"
