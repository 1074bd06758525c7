"""What the page takes from a data folder, without a browser."""

from __future__ import annotations

import json

import pytest

from tasks.evaluation.report import percent
from tasks.evaluation.series import Arm, Round, Series, write_series
from tasks.reporting.conversations import browser, conversations, unpacked
from tasks.reporting.folder import AFTER, BEFORE, read_run
from tasks.reporting.page import page, write_page
from tasks.reporting.tally import funnel, rates_by
from tasks.rollout.plan_request import PlanRequest, note_request
from tests.tasks.reporting.folders import HELD_OUT, episode, turn, write_data_file, write_journal


def test_the_funnel_adds_up_on_both_levels(data_folder, collected):
    counts = funnel(read_run(data_folder))
    assert counts.episodes == {"solved": 6, "unsolved": 5, "errored": 1}
    assert counts.turns == {"kept": 6, "episode_failed": 5, "episode_error": 1}
    assert sum(counts.turns.values()) == sum(len(e.turns) for e in collected)


def test_the_funnel_begins_at_what_was_requested_and_adds_up(data_folder, collected):
    journal = data_folder / ".episodes" / "c0"
    more = [f"{number:016x}" for number in range(99, 102)]
    hashes = [*(e.problem_hash for e in collected), *more]
    note_request(journal, PlanRequest(num_episodes=15, rollouts_per_problem=1, enough_successes=None, problems=hashes))
    counts = funnel(read_run(data_folder))
    assert counts.episodes == {"solved": 6, "unsolved": 5, "errored": 1, "not played yet": 3}
    assert counts.requested == sum(counts.episodes.values()) == 15
    html = page([read_run(data_folder)])
    assert "15 requested episodes = 6 solved + 5 unsolved + 1 errored + 3 not played yet" in html


def test_what_was_not_needed_counts_as_requested(tmp_path):
    write_journal(tmp_path, "c0", [episode(1), episode(2)])
    request = PlanRequest(
        num_episodes=8, rollouts_per_problem=4, enough_successes=1, problems=[f"{n:016x}" for n in (1, 2)]
    )
    note_request(tmp_path / ".episodes" / "c0", request)
    counts = funnel(read_run(tmp_path))
    assert (counts.requested, counts.episodes["not needed"]) == (8, 6)


def test_how_many_were_requested_of_an_earlier_version_is_not_known(data_folder):
    counts = funnel(read_run(data_folder))
    assert counts.requested is None
    assert counts.episodes == {"solved": 6, "unsolved": 5, "errored": 1}


def test_rounds_and_the_arms_of_a_control_are_on_the_page_until_a_run_without_any(data_folder):
    comparison = read_run(data_folder).comparison
    assert comparison is not None
    first = Round(number=1, success_rate=0.5, kept=6, trained_rows=6, comparison=comparison)
    empty = Round(number=2, success_rate=None, kept=0, trained_rows=0, comparison=None)
    arm = Arm(trained_rows=6, comparison=comparison)
    series = Series(rounds=[first, empty], arms={"successes": arm, "failures": arm})
    write_series(data_folder, series)
    run = read_run(data_folder)
    assert run.series == series
    html = page([run])
    assert "Success after each round" in html
    assert "<td>not promoted</td>" in html
    assert f"bare model: {percent(comparison.overall.before.value)}; trained on successes: " in html
    (data_folder / "series.json").write_text("{")
    assert "series.json cannot be read" in read_run(data_folder).notes[0]
    write_series(data_folder, Series())
    assert read_run(data_folder).series == Series()


def test_turns_of_a_collection_without_a_data_file_are_undecided(tmp_path):
    write_journal(tmp_path, "c0", [episode(1), episode(2, success=False)])
    assert funnel(read_run(tmp_path)).turns == {"kept": 0, "undecided": 2}


def test_evaluations_are_told_from_collections_and_their_sides_from_each_other(data_folder):
    run = read_run(data_folder)
    assert [(j.name, j.is_heldout) for j in run.journals] == [("collected", False), (BEFORE, True), (AFTER, True)]
    assert run.comparison is not None
    assert (len(run.comparison.worse), len(run.comparison.better)) == (2, 15)
    assert run.comparison.excluded == 1


def test_a_lone_side_of_an_evaluation_is_not_taken_for_a_collection(tmp_path):
    collected = [episode(1)]
    write_journal(tmp_path, "c0", collected)
    write_data_file(tmp_path, collected)
    write_journal(tmp_path, "e1", [episode(7)], **HELD_OUT, adapters={"shared_model": "abc"})
    run = read_run(tmp_path)
    assert [e.env_idx for e in run.collected] == [1]
    assert [(j.name, j.is_heldout) for j in run.journals][1] == (AFTER, True)


def test_an_evaluation_that_shares_a_problem_with_a_collection_stays_one(tmp_path):
    shared = episode(7)
    collected = [episode(1), shared]
    write_journal(tmp_path, "c0", collected)
    write_data_file(tmp_path, collected, heldout=[shared])
    write_journal(tmp_path, "e0", [shared], **HELD_OUT)
    assert [(j.name, j.is_heldout) for j in read_run(tmp_path).journals][1:] == [("held out e0", True)]


def test_rates_leave_errors_out_and_turns_are_judged_by_their_own_success(tmp_path):
    two = [turn(success=False), turn(success=True, turn_idx=1)]
    write_journal(tmp_path, "c0", [episode(0, turns=two), episode(1, False), episode(2, error="a bug")])
    run = read_run(tmp_path)
    assert {n: (r.succeeded, r.count) for n, r in rates_by(run.collected, "env").items()} == {"math_env": (1, 2)}
    assert {n: (r.succeeded, r.count) for n, r in rates_by(run.collected, "turn").items()} == {
        "turn 1": (0, 2),
        "turn 2": (1, 1),
    }


def test_what_may_quote_a_held_out_answer_is_not_in_the_page(data_folder):
    packed = browser([read_run(data_folder)])
    text = {True: "", False: ""}
    index = unpacked(packed.index)
    for place, talk in zip(index["set"], conversations(packed), strict=True):
        text[index["sets"][place]["heldout"]] += json.dumps(talk)
    assert "gold 1" in text[False]
    assert "reply 105" in text[True]
    assert "gold" not in text[True]


def test_a_page_is_bounded_and_keeps_every_episode_in_its_list(data_folder):
    packed = browser([read_run(data_folder)], most_bytes=1)
    assert not packed.chunks
    assert packed.num_without_conversation == len(unpacked(packed.index)["hash"]) == 52


def test_damage_is_noted_and_the_rest_is_shown(data_folder):
    shard = data_folder / ".episodes" / "e1" / "shard-0000.jsonl"
    shard.write_text("{}\n" + shard.read_text())
    run = read_run(data_folder)
    assert len(run.collected) == 12
    assert run.comparison is None
    assert "e1/shard-0000.jsonl:1: not an episode" in run.notes[0]
    assert "not an episode" in page([run])


def test_the_training_log_of_the_model_folder_is_drawn(data_folder):
    model = data_folder.parent / "sft_model_math"
    model.mkdir()
    (model / "adapter_config.json").write_text("{}")
    log = [{"step": 1, "loss": 2.0, "epoch": 0.1}, {"step": 2, "validation_loss": 1.5}, {"step": 2, "loss": 1.25}]
    (model / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    html = page([read_run(data_folder)])
    assert "sft_model_math: 2.000 to 1.250" in html
    assert "sft_model_math, validation" in html


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_without_episodes_is_one_clear_line(tmp_path, there):
    folder = tmp_path if there else tmp_path / "nowhere"
    with pytest.raises(ValueError, match="holds no episodes; wanted" if there else "is not a folder; wanted"):
        write_page([folder], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_same_folder_gives_the_same_page(data_folder):
    assert page([read_run(data_folder)]) == page([read_run(data_folder)])
