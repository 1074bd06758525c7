from __future__ import annotations

import fcntl
import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
import yaml

from tasks.dataset.files import find_data_files, find_weighted_files, write_dataset
from tasks.dataset.reading import read_records
from tasks.dataset.rows import DataFileError
from tasks.dataset.select import select_turns
from tasks.rollout.config import CollectConfig

NOON = datetime(2026, 1, 31, 23, 59, 59)


@pytest.fixture
def selection(build):
    return select_turns([build.episode(0), build.episode(1, success=False)], CollectConfig(), frozenset())


def touch(folder, *names):
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        (folder / name).write_text("")
    return [folder / name for name in names]


def test_a_dataset_is_published_with_its_rejected_turns_and_its_config(selection, tmp_path):
    ref = write_dataset(tmp_path / "sft_data_math", selection, {"env": {"name": "math_env", "roles": None}}, NOON)
    assert sorted(p.name for p in ref.path.parent.iterdir()) == [
        "sft_data_20260131_235959.jsonl",
        "sft_data_20260131_235959_config.yaml",
        "sft_data_20260131_235959_rejected.jsonl",
    ]
    assert [row.record for row in read_records([ref.path])] == selection.kept
    (rejected,) = map(json.loads, ref.rejected_path.read_text().splitlines())
    assert rejected["reason"] == "episode_failed"
    assert rejected["messages"][-1] == {"role": "assistant", "content": "reply 0"}
    assert yaml.safe_load(ref.config_path.read_text()) == {"env": {"name": "math_env", "roles": None}}
    assert ref.funnel == selection.funnel


def test_no_name_that_exists_is_used_again(selection, tmp_path):
    touch(tmp_path, "sft_data_20260201_000000_stats.json")
    first, second = (write_dataset(tmp_path, selection, {}, NOON).path.name for _ in range(2))
    assert first == "sft_data_20260131_235959.jsonl"
    assert second == "sft_data_20260201_000001.jsonl"


def test_a_run_waits_for_another_that_is_choosing_a_name(selection, tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with ThreadPoolExecutor(1) as pool:
        try:
            writing = pool.submit(write_dataset, tmp_path, selection, {}, NOON)
            with pytest.raises(TimeoutError):
                writing.result(timeout=0.3)
            assert list(tmp_path.iterdir()) == []
            touch(tmp_path, "sft_data_20260131_235959.jsonl")
        finally:
            os.close(fd)
        assert writing.result(timeout=30).path.name == "sft_data_20260201_000000.jsonl"


def test_without_a_spec_the_newest_data_file_is_taken(tmp_path):
    old, new, *_ = touch(
        tmp_path,
        "sft_data_20251231_235959.jsonl",
        "sft_data_20260101_000000.jsonl",
        "sft_data_20260102_000000_rejected.jsonl",
        "zzz.jsonl",
    )
    old.touch()
    assert find_data_files(None, tmp_path) == [new]


def test_a_file_a_glob_and_a_list_of_both_are_found_each_file_once(tmp_path, monkeypatch):
    one, two, rejected = touch(tmp_path / "d", "sft_data_1.jsonl", "sft_data_2.jsonl", "sft_data_2_rejected.jsonl")
    assert find_data_files(str(two), tmp_path) == [two]
    assert find_data_files(f"{tmp_path}/d/*.jsonl", tmp_path) == [one, two]
    assert find_data_files([str(two), f"{tmp_path}/*/sft_data_?.jsonl"], tmp_path) == [two, one]
    monkeypatch.chdir(tmp_path)
    assert [str(p) for p in find_data_files("d/*_[2].jsonl", tmp_path)] == ["d/sft_data_2.jsonl"]
    with pytest.raises(DataFileError, match=r"holds the turns that were rejected; wanted sft_data_2\.jsonl"):
        find_data_files(str(rejected), tmp_path)


def test_a_file_with_brackets_in_its_name_is_found_as_it_is_called(tmp_path):
    (path,) = touch(tmp_path, "run[1].jsonl")
    assert find_data_files(path, tmp_path) == [path]


def test_weights_hold_for_all_files_that_their_entry_names(tmp_path):
    one, two, three = touch(tmp_path, "a1.jsonl", "a2.jsonl", "b.parquet")
    weights = {f"{tmp_path}/a*.jsonl": 2.0, str(three): 0.5}
    assert find_weighted_files(weights, tmp_path) == {one: 2.0, two: 2.0, three: 0.5}
    with pytest.raises(DataFileError, match=r"both .*a\*\.jsonl and .*a1\.jsonl name .*a1\.jsonl; wanted one weight"):
        find_weighted_files({**weights, str(one): 3.0}, tmp_path)
    with pytest.raises(DataFileError, match="is not there"):
        find_weighted_files({"nope.jsonl": 1.0}, tmp_path)
    with pytest.raises(DataFileError, match=r"train\.data_path is empty"):
        find_weighted_files({}, tmp_path)


def test_a_missing_file_lists_the_ones_that_exist_newest_first(tmp_path):
    old, new = touch(tmp_path / "data", "sft_data_20250101_000000.jsonl", "sft_data_20260101_000000.jsonl")
    for spec in ("nope.jsonl", f"{tmp_path}/data/nope*.jsonl", ["nope.jsonl"]):
        with pytest.raises(DataFileError) as caught:
            find_data_files(spec, tmp_path / "data")
        assert "is not there; wanted a JSONL or parquet file, or a glob." in str(caught.value)
        assert str(caught.value).endswith(f"These exist: {new}, {old}.")
        assert "\n" not in str(caught.value)


def test_a_folder_is_refused_with_the_files_in_it(tmp_path):
    (path,) = touch(tmp_path / "data", "sft_data_20260101_000000.jsonl")
    with pytest.raises(DataFileError, match="is a folder; wanted a JSONL or parquet file, or a glob") as caught:
        find_data_files(tmp_path / "data", tmp_path / "nowhere")
    assert str(path) in str(caught.value)


def test_where_nothing_was_collected_the_message_says_how_to(tmp_path):
    with pytest.raises(DataFileError, match=r"collect first with `python -m flows\.collect_only`"):
        find_data_files(None, tmp_path / "nowhere")
    with pytest.raises(DataFileError, match="No data file exists yet"):
        find_data_files("x.jsonl", tmp_path / "nowhere")
    with pytest.raises(DataFileError, match="empty list"):
        find_data_files([], tmp_path)
