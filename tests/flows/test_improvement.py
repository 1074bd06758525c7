"""Flows that train more than once, on a real Prefect server with a scripted engine that does better with an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.adapters import FolderError
from flows.collect_and_train import collect_and_train
from flows.control import control
from flows.evaluate_only import evaluate_only
from flows.expert_iteration import expert_iteration
from flows.train_only import train_only
from tasks.dataset.checks import NothingToTrainOnError
from tasks.rollout.artifact import content_hash
from tasks.training.launch import TrainingRefusedError

IMPROVING = {
    "engine": {"kind": "scripted", "script": "improving:reply"},
    "collect": {"num_episodes": 30, "only_success": True},
    "evaluate": {"num_problems": 60},
}
TWO_POLICIES = {
    "env": {"roles": ["reasoning_generator", "tool_generator"]},
    "policies": {"reasoning_generator": "thinker", "tool_generator": "coder"},
}


def test_a_round_collects_with_the_adapter_that_was_promoted_and_one_that_does_not_help_is_not(
    run_folder: Path, make_config: Any, asked: list[str | None]
) -> None:
    config = make_config(**IMPROVING, iterate={"num_rounds": 2})
    report = expert_iteration(config)
    assert [played.promoted for played in report.rounds] == [True, False]
    assert report.rounds[0].success_rate is not None
    assert report.rounds[1].success_rate is not None
    assert report.rounds[0].success_rate < 0.75 < report.rounds[1].success_rate
    models = run_folder / "sft_model_math-rounds"
    assert content_hash(models / "promoted") == content_hash(models / "round-1") != content_hash(models / "round-2")
    assert "| held-out problems | 60 |" in (models / "promoted" / "README.md").read_text()
    assert asked.count(None) == 30 + 60
    kept = [played.kept for played in report.rounds]
    assert [played.trained_rows for played in report.rounds] == [kept[0], sum(kept)]
    assert "rounds.png" in _report(run_folder)
    assert "Success after each round" in _page(run_folder)
    assert (run_folder / "sft_data_math" / "rounds.png").stat().st_size > 10_000
    assert report.cached == ()
    before = len(asked)
    again = expert_iteration(config)
    assert again.rounds == report.rounds
    assert again.comparison == report.comparison
    assert len(asked) == before
    promoted = {"adapter_dir": str(models / "promoted")}
    measured = evaluate_only(make_config(**IMPROVING | {"evaluate": {"num_problems": 60, **promoted}}))
    assert measured.comparison == report.comparison


def test_a_round_that_keeps_nothing_is_not_promoted_and_the_best_one_stays(
    run_folder: Path, make_config: Any, asked: list[str | None]
) -> None:
    sections = IMPROVING | {"engine": {"kind": "scripted", "script": "improving:reply_until_adapted"}}
    report = expert_iteration(make_config(**sections, iterate={"num_rounds": 2}))
    assert [played.promoted for played in report.rounds] == [True, False]
    assert report.rounds[1].comparison is None
    assert "| 2 | 0.0 % | 0 | 0 rows | - | - | - | not promoted |" in _report(run_folder)
    assert (run_folder / "sft_model_math-rounds" / "promoted" / "adapter_model.safetensors").exists()


def test_another_flow_leaves_the_rounds_alone(run_folder: Path, make_config: Any) -> None:
    config = make_config(**IMPROVING, iterate={"num_rounds": 1})
    collect_and_train(config)
    expert_iteration(config)
    assert "train" in collect_and_train(config).cached
    assert (run_folder / "sft_model_math-rounds" / "promoted").is_dir()
    with pytest.raises(TrainingRefusedError, match=r"holds trained models \(promoted, round-1\)"):
        collect_and_train(make_config(**IMPROVING, train={"output_dir": "sft_model_math-rounds"}))


def test_policies_are_not_put_inside_of_a_trained_model(run_folder: Path, make_config: Any) -> None:
    collect_and_train(make_config())
    with pytest.raises(FolderError, match="the policies would be put inside of it"):
        collect_and_train(make_config(**TWO_POLICIES))


def test_a_control_without_anything_to_train_on_is_found_before_any_training(
    run_folder: Path, make_config: Any
) -> None:
    always_right = {"engine": {"kind": "scripted", "script": "improving:right_reply"}}
    with pytest.raises(NothingToTrainOnError, match="`failures`"):
        control(make_config(**IMPROVING | always_right))
    assert not (run_folder / "sft_model_math").exists()


def test_controls_are_trained_on_as_many_failures_and_on_chance_picks(
    run_folder: Path, make_config: Any, asked: list[str | None]
) -> None:
    report = control(make_config(**IMPROVING))
    assert set(report.controls) == {"failures", "shuffled verdicts"}
    folder = run_folder / "sft_data_math" / "controls"
    failures = _read_one(folder, "shared_model-failures-????????.jsonl")
    shuffled = _read_one(folder, "shared_model-shuffled-verdicts-????????.jsonl")
    assert len(failures) == min(report.kept["shared_model"], 30 - report.kept["shared_model"])
    assert all("boxed{-1}" in row["messages"][-1]["content"] for row in failures)
    assert {row["metadata"]["env_success"] for row in failures} == {False}
    assert {row["metadata"]["env_success"] for row in shuffled} == {False, True}
    assert len(shuffled) == report.kept["shared_model"]
    assert f"| {len(failures)} |" in _report(run_folder)
    assert "trained on shuffled verdicts: " in _page(run_folder)
    for name in ("sft_model_math", "sft_model_math-failures", "sft_model_math-shuffled-verdicts"):
        assert (run_folder / name / "adapter_model.safetensors").exists()


def test_each_policy_is_trained_on_its_own_turns_and_both_are_evaluated_together(
    run_folder: Path, make_config: Any, played: list[Any]
) -> None:
    config = make_config(**TWO_POLICIES, evaluate={"num_problems": 4})
    report = collect_and_train(config)
    assert report.kept == {"thinker": 12, "coder": 12}
    for policy, role in (("thinker", "reasoning_generator"), ("coder", "tool_generator")):
        (data,) = (run_folder / "sft_data_math").glob(f"sft_data_*.{policy}.jsonl")
        assert {row["metadata"]["agent_name"] for row in _read(data)} == {role}
        assert {row["metadata"]["policy_name"] for row in _read(data)} == {policy}
        assert (run_folder / "sft_model_math" / policy / "adapter_model.safetensors").exists()
    assert {request.adapter for request in played} == {None, "thinker", "coder"}
    again = len(played)
    assert evaluate_only(config).comparison == report.comparison
    assert len(played) == again


def test_training_on_files_is_for_one_policy(run_folder: Path, make_config: Any) -> None:
    with pytest.raises(ValueError, match="leave `policies` out"):
        train_only(make_config(**TWO_POLICIES, train={"data_path": "x.jsonl"}))


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"nobody": "x"}, "policies: no role 'nobody' plays here; wanted math_single_agent"),
        ({"math_single_agent": "../x"}, "should match pattern"),
    ],
)
def test_policies_of_roles_that_do_not_play_or_with_names_no_file_can_have_are_refused(
    make_config: Any, policies: dict[str, str], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make_config(policies=policies)


def _report(run_folder: Path) -> str:
    return (run_folder / "sft_data_math" / "report.md").read_text()


def _page(run_folder: Path) -> str:
    return (run_folder / "sft_data_math" / "report.html").read_text()


def _read_one(folder: Path, pattern: str) -> list[dict[str, Any]]:
    (path,) = folder.glob(pattern)
    return _read(path)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
