"""Nights are collected with what is promoted, a week is trained on, and only what is better is promoted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.states import Scheduled

from flows.adapters import FolderError
from flows.collect_only import collect_only
from flows.evaluate_only import evaluate_only
from flows.expert_iteration import expert_iteration
from flows.train_and_promote import _with_clean_files, train_and_promote
from tasks.dataset.decontaminate import without_held_out
from tasks.evaluation.report import RunReport
from tasks.promotion.history import read_history
from tasks.promotion.promoted import current_version, promote, roll_back
from tasks.rollout.artifact import content_hash
from tests.tasks.promotion.test_promoted import BETTER, model

SECTIONS: dict[str, Any] = {
    "engine": {"kind": "scripted", "script": "improving:reply"},
    "evaluate": {"num_problems": 60},
}
PROMOTED = "sft_model_math-promoted"


def night(make_config: Any, name: str) -> Path:
    """The data file of a night that is played by what is promoted."""
    collect = {"num_episodes": 30, "only_success": True, "batch": name, "adapter_dir": PROMOTED}
    report = collect_only(make_config(**SECTIONS, collect=collect))
    return Path(report.files["data file"]).absolute()


def test_a_week_of_nights_is_trained_on_and_promoted_only_if_it_is_better(
    run_folder: Path, make_config: Any, asked: list[str | None]
) -> None:
    week = make_config(**SECTIONS)
    folder = run_folder / PROMOTED
    nothing = train_and_promote(week)
    assert nothing.promotion == (
        "kept the bare model: nothing to train on: no data was collected since the last promotion"
    )
    assert not nothing.trained and not (run_folder / "sft_model_math").exists()
    assert (shown := Artifact.get("math-promotion")) and shown.description == nothing.promotion

    first = [night(make_config, "monday"), night(make_config, "tuesday")]
    assert set(asked) == {None}
    report = train_and_promote(week)
    version = current_version(folder)
    assert (
        version and report.promotion == f"promoted {version} in place of the bare model: improved on held-out problems"
    )
    assert (shown := Artifact.get("math-promotion")) and shown.description == report.promotion
    assert "| verdict | improved" in str(shown.data) and f"| promoted | {PROMOTED} |" in str(shown.data)
    assert content_hash(folder / "current") == content_hash(run_folder / "sft_model_math")
    assert "| compared with | the bare model |" in (folder / "current" / "README.md").read_text()
    assert report.promotion in (run_folder / "sft_data_math" / "report.md").read_text()
    (kept, promoted) = read_history(folder)
    assert kept.outcome == "kept the old one" and set(promoted.data) == {str(path) for path in first}

    asked.clear()
    third = night(make_config, "wednesday")
    assert set(asked) == {"shared_model"}
    assert PROMOTED in (run_folder / "sft_data_math" / "report.md").read_text()
    report = train_and_promote(week)
    assert report.promotion == f"kept {version}: no significant difference on held-out problems"
    assert report.trained["shared_model"].rows == len(third.read_text().splitlines())
    assert report.compared_with == version and report.comparison and report.comparison.overall.difference.value == 0
    assert current_version(folder) == version and set(read_history(folder)[-1].data) == {str(third)}

    asked.clear()
    again = train_and_promote(week)
    assert set(again.cached) == {"train", "evaluate"} and not asked
    measured = evaluate_only(make_config(**SECTIONS | {"evaluate": {"num_problems": 60, "adapter_dir": PROMOTED}}))
    assert measured.comparison and measured.comparison.verdict == "improved"
    roll_back(folder)
    with pytest.raises(FolderError, match="nothing is promoted in"):
        evaluate_only(make_config(**SECTIONS | {"evaluate": {"num_problems": 60, "adapter_dir": PROMOTED}}))


def test_a_week_that_starts_late_takes_what_another_has_trained_on_since_it_was_due_for_used(
    run_folder: Path, make_config: Any, asked: list[str | None]
) -> None:
    data, week = night(make_config, "monday"), make_config(**SECTIONS)
    with get_client(sync_client=True) as client:
        late = client.create_flow_run(
            train_and_promote, parameters={"config": week}, state=Scheduled(scheduled_time=datetime.now(UTC))
        )
    folder = run_folder / PROMOTED
    parts, used = {Path(): model(run_folder / "model", "of another")}, {str(data): content_hash(data)}
    version = promote(folder, parts, instead_of=None, comparison=BETTER, data=used).version
    asked.clear()
    report = run_flow(train_and_promote, late, {"config": week})
    assert isinstance(report, RunReport) and report.promotion == (
        f"kept {version}: nothing to train on: no data was collected since the last promotion"
    )
    assert not report.trained and not asked


def test_what_cannot_be_is_refused(run_folder: Path, make_config: Any) -> None:
    with pytest.raises(ValueError, match=r"evaluate\.num_problems: found 0; what is promoted must be better"):
        train_and_promote(make_config())
    with pytest.raises(FolderError, match=r"collect\.adapter_dir: .*/nowhere holds no adapter_config\.json"):
        collect_only(make_config(collect={"adapter_dir": "nowhere"}))
    with pytest.raises(ValueError, match="rounds begin with the bare model"):
        expert_iteration(make_config(**SECTIONS, collect={"adapter_dir": PROMOTED}))


def test_rows_that_came_to_be_held_out_are_left_out(tmp_path: Path) -> None:
    def write(name: str, *problems: str) -> Path:
        rows = [
            {
                "messages": [{"role": "user", "content": p}, {"role": "assistant", "content": "4"}],
                "metadata": {"problem_hash": p},
            }
            for p in problems
        ]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    whole, mixed, lost = write("a.jsonl", "1", "2"), write("b.jsonl", "3", "9"), write("c.jsonl", "9", "9")
    clean, lacking = without_held_out([whole, mixed, lost], {"9"})
    (first, second) = clean.values()
    assert first == whole and second.name.startswith("decontaminated_b_") and lacking == 3
    assert [json.loads(line)["metadata"]["problem_hash"] for line in second.read_text().splitlines()] == ["3"]
    before = second.stat()
    assert without_held_out([whole, mixed, lost], {"9"}) == ({whole: first, mixed: second}, 3)
    assert second.stat() == before


def test_a_weight_goes_with_the_file_that_takes_the_place_of_another(make_config: Any) -> None:
    config = make_config(train={"data_path": {"/d/a.jsonl": 0.2, "/d/b.jsonl": 2, "/d/lost.jsonl": 1}})
    clean = {Path("/d/a.jsonl"): Path("/d/clean_a.jsonl"), Path("/d/b.jsonl"): Path("/d/b.jsonl")}
    assert _with_clean_files(config, clean).train.data_path == {"/d/clean_a.jsonl": 0.2, "/d/b.jsonl": 2}
