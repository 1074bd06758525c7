from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from pathlib import Path

from tasks.housekeeping.cache_items import cache_items, result_items
from tasks.housekeeping.data_items import data_items
from tasks.housekeeping.inventory import run_items
from tasks.housekeeping.item import newest
from tasks.housekeeping.model_items import model_items
from tasks.promotion.history import Entry, Proof, append_entry, now
from tasks.rollout.folder_lock import lock_folder, unlock_folder
from tasks.rollout.plan_request import PlanRequest, note_request
from tests.tasks.reporting.folders import episode, write_data_file, write_journal

PROOF = Proof(
    problems=200, before=0.5, after=0.6, difference=0.1, low=0.05, high=0.15, p_value=0.01, verdict="improved"
)


def ask_for(journal: Path, count: int) -> None:
    hashes = [f"{number:016x}" for number in range(1, count + 1)]
    request = PlanRequest(num_episodes=count, rollouts_per_problem=1, enough_successes=None, problems=hashes)
    note_request(journal, request)


def test_a_journal_is_unfinished_then_running_then_whole_and_unfinished_when_more_is_asked_for(tmp_path):
    write_journal(tmp_path, "c0", [episode(1), episode(2, False), episode(3, error="a bug")], batch="2026-01-02")
    journal = tmp_path / ".episodes" / "c0"
    ask_for(journal, 5)
    (item,) = data_items(tmp_path)
    assert item.state.startswith("unfinished")
    assert item.detail == "3 of the bare model, batch 2026-01-02: 1 solved, 1 unsolved, 1 errored; 2 owed"
    lock = lock_folder(journal)
    (item,) = data_items(tmp_path)
    unlock_folder(lock)
    assert item.state == item.needed == f"running, process {os.getpid()}"
    (journal / "plan-0.jsonl").write_text("")
    ask_for(journal, 3)
    (item,) = data_items(tmp_path)
    assert (item.state, item.owed, item.needed) == ("whole", 0, "")
    ask_for(journal, 9)
    (item,) = data_items(tmp_path)
    assert (item.state.split(",")[0], item.owed) == ("unfinished", 6)


def test_what_a_journal_of_an_earlier_version_owes_is_unknown_and_why(tmp_path):
    write_journal(tmp_path, "c0", [episode(1)])
    (item,) = data_items(tmp_path)
    assert item.owed is None
    assert item.detail.endswith("owed unknown: an earlier version wrote no request.json")


def test_a_training_that_holds_its_lock_is_running(tmp_path):
    work = tmp_path / ".sft_model_math.work-0"
    (work / "checkpoints" / "checkpoint-40").mkdir(parents=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (item,) = model_items(tmp_path)
        assert item.state == item.needed == "running"
    (item,) = model_items(tmp_path)
    assert item.state.split(",")[0] == "unfinished"
    assert item.cost == "40 steps must be trained again"


def test_a_damaged_journal_is_said_to_be_so(tmp_path):
    write_journal(tmp_path, "c0", [episode(1)])
    (tmp_path / ".episodes" / "c0" / "shard-0000.jsonl").write_text("{}\n")
    (item,) = data_items(tmp_path)
    assert item.state == "damaged"
    assert "shard-0000.jsonl:1" in item.detail


def test_data_files_are_counted_and_what_was_rejected_is_not_one(tmp_path):
    data, rejected = data_items_after(tmp_path)
    assert (data.what, data.detail, data.extent.disk_bytes) == ("data file", "2 rows", 6)
    assert [path.name for path in data.companions] == ["sft_data_20260102_030405_rejected.jsonl"]
    assert rejected.path == data.companions[0]


def data_items_after(folder: Path):
    (folder / "sft_data_20260102_030405.jsonl").write_text("{}\n{}\n")
    (folder / "sft_data_20260102_030405_rejected.jsonl").write_text("{}\n")
    return data_items(folder)


def test_the_newest_collection_and_either_side_of_an_evaluation_count_as_newest(tmp_path):
    for i, (name, identity) in enumerate(
        [
            ("night1", {"batch": "1"}),
            ("night2", {"batch": "2"}),
            ("before", {"problems": "held out"}),
            ("after1", {"problems": "held out", "adapters": {"shared_model": "a"}}),
            ("after2", {"problems": "held out", "adapters": {"shared_model": "b"}}),
        ]
    ):
        write_journal(tmp_path, name, [episode(1)], **identity)
        for file in (tmp_path / ".episodes" / name).iterdir():
            os.utime(file, (1000 + i, 1000 + i))
    found = newest(list(data_items(tmp_path)), 1)
    assert {path.name for path in found} == {"night2", "before", "after2"}


def test_what_is_promoted_is_told_from_the_others_with_its_result(tmp_path):
    for name in ("sft_model_math", "sft_model_math-rounds/1", "sft_model_math-rounds/promoted"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "training_args.bin").touch()
    (tmp_path / "interview-rounds/2024").mkdir(parents=True)
    (tmp_path / "holiday-promoted/versions/v1").mkdir(parents=True)
    promoted = tmp_path / "sft_model_math-promoted"
    for version in ("20260101_020304-aaaaaaaa", "20260108_020304-bbbbbbbb"):
        (promoted / "versions" / version).mkdir(parents=True)
    (promoted / "current").symlink_to("versions/20260108_020304-bbbbbbbb")
    told = Entry(
        when=now(),
        outcome="promoted",
        version="20260108_020304-bbbbbbbb",
        replaced="20260101_020304-aaaaaaaa",
        why="improved",
        proof=PROOF,
    )
    append_entry(promoted, told)
    items = model_items(tmp_path)
    found = {str(i.path.relative_to(tmp_path)): (i.state, i.needed, i.detail.partition(", ")[2]) for i in items}
    assert found == {
        "sft_model_math": ("whole", "a result", ""),
        "sft_model_math-promoted/versions/20260101_020304-aaaaaaaa": ("replaced", "a roll-back goes to it", ""),
        "sft_model_math-promoted/versions/20260108_020304-bbbbbbbb": (
            "promoted",
            "promoted",
            "promoted: improved, 50.0 % -> 60.0 % of 200",
        ),
        "sft_model_math-rounds/1": ("whole", "", ""),
        "sft_model_math-rounds/promoted": ("promoted", "promoted", "the best of the rounds"),
    }


def test_what_a_link_leads_to_must_stay(tmp_path):
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    write_journal(elsewhere, "c0", [episode(1)])
    write_data_file(elsewhere, [episode(1)])
    here.mkdir()
    (here / "sft_data_math").symlink_to(elsewhere)
    assert {item.needed for item in run_items(here)} == {"behind the link sft_data_math"}
    assert {item.needed for item in run_items(elsewhere)} == {""}


def test_leftovers_of_killed_runs_are_found_once_they_are_old(tmp_path):
    write_journal(tmp_path, "c0", [episode(1)])
    leftovers = [".report.html.0a1b2c3d.tmp", "sft_data_20260102_030405_stats.json", ".episodes/.c0.x", ".pruned-1"]
    others = [".bash_history-01234.tmp", ".thesis.tmp"]
    for name in (*leftovers, *others):
        (tmp_path / name).write_text("half")
    assert [i.path.name for i in data_items(tmp_path) if i.kind == "leftovers"] == [".pruned-1"]
    long_ago = time.time() - 3 * 24 * 3600
    for name in (*leftovers, *others):
        os.utime(tmp_path / name, (long_ago, long_ago))
    found = {str(i.path.relative_to(tmp_path)) for i in data_items(tmp_path) if i.kind == "leftovers"}
    assert found == set(leftovers)


def test_a_result_whose_files_are_gone_is_of_no_use_and_foreign_ones_are_not_looked_at(tmp_path):
    (tmp_path / "there").touch()
    for name, path in (("winnow-collect-1", tmp_path / "there"), ("winnow-train-2", tmp_path / "gone")):
        result = {"__class__": "Ref", "data": {"path": str(path), "sha256": "0"}}
        (tmp_path / name).write_text(json.dumps({"metadata": {}, "result": json.dumps(result)}))
    (tmp_path / "0123456789abcdef").write_text("of another project")
    shutil.copy(tmp_path / "winnow-train-2", tmp_path / "winnow-train-3")
    long_ago = time.time() - 3 * 24 * 3600
    os.utime(tmp_path / "winnow-train-2", (long_ago, long_ago))
    assert {i.path.name: i.worthless for i in result_items(tmp_path)} == {
        "winnow-collect-1": False,
        "winnow-train-2": True,
        "winnow-train-3": False,
    }


def test_token_rows_and_search_indexes_are_caches_and_their_locks_are_not(tmp_path):
    for name in ("tokens/ab", "bm25-1-x"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / f"{name}.lock").touch()
    (tmp_path / "responses.sqlite").touch()
    assert [i.path.name for i in cache_items(tmp_path)] == ["ab", "bm25-1-x", "responses.sqlite"]
