from __future__ import annotations

import json

import pytest

from tasks.dataset.checks import (
    DataFileError,
    DistinctRows,
    NothingToTrainOnError,
    check_records,
    check_something_kept,
)
from tasks.dataset.records import REASONS, Funnel
from tasks.dataset.select import select_turns
from tasks.rollout.config import CollectConfig


def write(path, *replies, agent="solver"):
    for reply in replies:
        messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": reply}]
        with path.open("a") as file:
            file.write(json.dumps({"messages": messages, "metadata": {"agent_name": agent}}) + "\n")
    return path


def test_rows_that_repeat_an_earlier_one_are_left_out_and_counted_across_files(tmp_path):
    one = write(tmp_path / "1.jsonl", "a", "b", "a")
    two = write(tmp_path / "2.jsonl", "b", "c", agent="tester")
    report = check_records([one, two])
    assert [r.record.messages[-1]["content"] for r in DistinctRows([one, two])] == ["a", "b", "c"]
    assert (report.rows, report.duplicates) == (3, 2)
    assert report.rows_by_agent == {"solver": 2, "tester": 1}


def test_files_without_rows_are_refused(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text("\n")
    with pytest.raises(DataFileError, match=r"empty\.jsonl: no rows; wanted at least one record"):
        check_records([path])


def nothing_kept(episodes, **options):
    with pytest.raises(NothingToTrainOnError) as caught:
        check_something_kept(select_turns(episodes, CollectConfig(**options), frozenset()).funnel)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_to_train_on_says_the_success_rate_and_what_to_try(build):
    message = nothing_kept(
        [build.episode(i, success=False) for i in range(3)] + [build.episode(3, error=build.error())]
    )
    assert "0 of 3 finished episodes succeeded (0.0 %), 1 errored, and 0 of 4 turns were kept" in message
    assert "(rejected: episode_error 1, episode_failed 3)" in message
    assert "Try --collect.only_success false" in message
    assert "--model.path" in message


def test_what_to_try_fits_the_reason_that_took_most(build):
    cut = build.turn(finish_reason="length")
    assert "a higher --collect.max_tokens" in nothing_kept([build.episode(turns=[cut])])
    failed = [build.turn(success=False)]
    assert "--collect.collect_mode env" in nothing_kept([build.episode(turns=failed)], collect_mode="agent")
    assert "no turn was played" in nothing_kept([build.episode(turns=[], error=build.error())])


@pytest.mark.parametrize("reason", REASONS)
def test_there_is_something_to_try_whatever_took_all_turns(reason):
    counts = {"finished": 1, "succeeded": 1, "errored": 0, "turns": 2, "kept": 0, "kept_by_agent": {}}
    with pytest.raises(NothingToTrainOnError, match=rf"rejected: {reason} 2\)\. Try .+\."):
        check_something_kept(Funnel(**counts, rejected={reason: 2}))


def test_one_kept_turn_is_something(build):
    check_something_kept(select_turns([build.episode()], CollectConfig(), frozenset()).funnel)


def test_rows_of_held_out_problems_are_refused(tmp_path):
    path = write(tmp_path / "1.jsonl", "a")
    message = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}
    with path.open("a") as file:
        file.write(json.dumps({**message, "metadata": {"agent_name": "solver", "problem_hash": "abc"}}) + "\n")
    assert check_records([path], {"def"}).rows == 2
    with pytest.raises(DataFileError, match="1 of 2 rows are of problems that are held out"):
        check_records([path], {"abc"})
