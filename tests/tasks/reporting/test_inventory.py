from __future__ import annotations

import fcntl
import os

from tasks.reporting.inventory import data_items, model_items
from tasks.rollout.folder_lock import lock_folder, unlock_folder
from tests.tasks.reporting.folders import episode, write_journal


def test_a_journal_is_unfinished_then_running_then_whole(tmp_path):
    write_journal(tmp_path, "c0", [episode(1), episode(2, False), episode(3, error="a bug")], batch="2026-01-02")
    journal = tmp_path / ".episodes" / "c0"
    (item,) = data_items(tmp_path)
    assert item.state.startswith("unfinished")
    assert item.detail == "3 of the bare model, batch 2026-01-02: 1 solved, 1 unsolved, 1 errored"
    lock = lock_folder(journal)
    (item,) = data_items(tmp_path)
    unlock_folder(lock)
    assert item.state == f"running, process {os.getpid()}"
    (journal / "plan-0.jsonl").write_text("")
    (item,) = data_items(tmp_path)
    assert item.state == "whole"


def test_a_training_that_holds_its_lock_is_running(tmp_path):
    work = tmp_path / ".sft_model_math.work-0"
    work.mkdir()
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert [item.state for item in model_items(tmp_path)] == ["running"]
    assert [item.state.split(",")[0] for item in model_items(tmp_path)] == ["unfinished"]


def test_a_damaged_journal_is_said_to_be_so(tmp_path):
    write_journal(tmp_path, "c0", [episode(1)])
    (tmp_path / ".episodes" / "c0" / "shard-0000.jsonl").write_text("{}\n")
    (item,) = data_items(tmp_path)
    assert item.state == "damaged"
    assert "shard-0000.jsonl:1" in item.detail


def test_data_files_are_counted_and_what_was_rejected_is_not_one(tmp_path):
    (tmp_path / "sft_data_20260102_030405.jsonl").write_text("{}\n{}\n")
    (tmp_path / "sft_data_20260102_030405_rejected.jsonl").write_text("{}\n")
    (item,) = data_items(tmp_path)
    assert (item.what, item.detail, item.disk_bytes) == ("data file", "2 rows", 6)


def test_the_promoted_model_and_an_interrupted_training_are_told_from_the_others(tmp_path):
    for name in (
        "sft_model_math",
        "sft_model_math-rounds/1",
        "sft_model_math-rounds/promoted",
        ".sft_model_math.work-0",
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights").write_bytes(b"12345")
    found = {
        str(item.path.relative_to(tmp_path)): (item.state.split(",")[0], item.disk_bytes)
        for item in model_items(tmp_path)
    }
    assert found == {
        "sft_model_math": ("whole", 5),
        "sft_model_math-rounds/1": ("whole", 5),
        "sft_model_math-rounds/promoted": ("promoted", 5),
        ".sft_model_math.work-0": ("unfinished", 5),
    }
