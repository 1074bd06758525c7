"""Flows on a real Prefect server, with a scripted engine and a tiny model: what is cached, and what is played again."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

from flows.collect_and_train import collect_and_train
from flows.collect_only import collect_only
from flows.evaluate_only import evaluate_only
from flows.train_only import train_only
from tasks.dataset.checks import NothingToTrainOnError
from tasks.engines.base import Sampling
from tasks.training.launch import TrainingError, TrainingRefusedError

MODEL_FILES = {
    "config.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "training_args.bin",
}


def data_files(folder: Path) -> list[Path]:
    return [p for p in folder.glob("sft_data_*.jsonl") if not p.name.endswith("_rejected.jsonl")]


def test_collecting_writes_data_stats_rejects_config_and_report(run_folder: Path, make_config: Any) -> None:
    config = make_config()
    report = collect_only(config)
    assert f"--model.path {config.model.path} --train.data_path" in report.next_steps[1]
    assert (report.requested, report.finished, report.errored) == (12, 12, 0)
    (data,) = data_files(run_folder / "sft_data_math")
    assert len(data.read_text().splitlines()) == 12
    assert report.kept == {"shared_model": 12}
    for ending in ("_stats.json", "_rejected.jsonl", "_config.yaml"):
        assert data.with_name(data.stem + ending).exists()
    assert (run_folder / "sft_data_math" / "report.md").exists()
    assert "12 requested episodes = " in (run_folder / "sft_data_math" / "report.html").read_text()


def test_a_failed_training_is_repeated_without_collecting_again(
    run_folder: Path, make_config: Any, played: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("tasks.training.launch.sys.executable", "/bin/false")
        with pytest.raises(TrainingError):
            collect_and_train(make_config())
    assert not (run_folder / "sft_model_math").exists()
    assert len(played) == 12
    report = collect_and_train(make_config())
    assert len(played) == 12
    assert report.cached == ("collect", "validate")
    assert {p.name for p in (run_folder / "sft_model_math").iterdir()} >= MODEL_FILES


def test_what_does_not_change_an_episode_plays_none_again(
    run_folder: Path, make_config: Any, played: list[Any]
) -> None:
    collect_only(make_config())
    for sections in (
        {"collect": {"only_success": False, "keep_truncated": True}},
        {"train": {"learning_rate": 1e-3}},
        {"engine": {"max_concurrency": 3}},
        {"collect": {"data_dir": str(run_folder / "elsewhere")}},
        {"train": {"output_dir": str(run_folder / "model")}},
    ):
        assert "collect" in collect_only(make_config(**sections)).cached
    assert len(played) == 12
    assert data_files(run_folder / "elsewhere")
    assert list((run_folder / "elsewhere" / ".episodes").iterdir())


@pytest.mark.parametrize(
    "sections",
    [
        {"collect": {"temperature": 0.5}},
        {"collect": {"batch": "tuesday"}},
        {"env": {"roles": ["reasoning_generator"]}},
        {"sandbox": {"memory_mb": 300}},
        {"engine": {"script": "guessing:reply_again"}},
    ],
)
def test_what_changes_an_episode_plays_all_again(
    run_folder: Path, make_config: Any, played: list[Any], sections: dict[str, Any]
) -> None:
    collect_only(make_config())
    assert not collect_only(make_config(**sections)).cached
    assert len(played) == 24


def test_a_role_is_sampled_as_it_is_told_and_no_other_is(run_folder: Path, make_config: Any, played: list[Any]) -> None:
    def collect(**of_tools: Any) -> list[Sampling]:
        """How the replies of a collection were drawn."""
        played.clear()
        by_role = {"tool_generator": of_tools} if of_tools else {}
        collect_only(make_config(env={"roles": None}, collect={"by_role": by_role, "num_episodes": 4}))
        return [request.sampling for request in played]

    general = Sampling(max_tokens=32)
    assert set(collect()) == {general}
    told = Sampling(temperature=0.2, max_tokens=9, stop=("</a>",))
    sampled = collect(temperature=0.2, max_tokens=9, stop=["</a>"])
    assert Counter(sampled) == {general: len(sampled) // 2, told: len(sampled) // 2}
    asked = {"".join(m["content"] for m in r.messages): r.sampling for r in played}
    assert {sampling for prompt, sampling in asked.items() if "python" in prompt.lower()} == {told}
    assert not collect(temperature=0.2, max_tokens=9, stop=["</a>"])
    assert collect(temperature=0.3)


def test_more_episodes_play_only_the_difference(run_folder: Path, make_config: Any, played: list[Any]) -> None:
    collect_only(make_config())
    collect_only(make_config(collect={"num_episodes": 15}))
    assert len(played) == 15


def test_the_next_command_names_the_model_and_a_data_folder_of_the_users_choice(
    run_folder: Path, make_config: Any
) -> None:
    config = make_config(collect={"data_dir": "my data"})
    hint = collect_only(config).next_steps[1]
    assert f"--env.name math_env --model.path {config.model.path} --collect.data_dir 'my data' --train" in hint


def test_a_journal_that_is_gone_is_played_again(run_folder: Path, make_config: Any, played: list[Any]) -> None:
    collect_only(make_config())
    shutil.rmtree(run_folder / "sft_data_math")
    assert not collect_only(make_config()).cached
    assert len(played) == 24


def test_a_data_file_that_is_gone_is_made_from_the_journal(
    run_folder: Path, make_config: Any, played: list[Any]
) -> None:
    collect_only(make_config())
    (data,) = data_files(run_folder / "sft_data_math")
    data.unlink()
    assert collect_only(make_config()).cached == ("collect",)
    assert len(played) == 12


def test_a_trained_model_is_compared_and_the_base_is_played_once(
    run_folder: Path, make_config: Any, played: list[Any]
) -> None:
    collect_only(make_config())
    played.clear()
    evaluate = {"num_problems": 5}
    report = train_only(make_config(evaluate=evaluate))
    assert report.comparison is not None
    assert report.comparison.overall.problems == 5
    assert len(played) == 10
    again = evaluate_only(make_config(evaluate=evaluate))
    assert len(played) == 10
    assert again.cached == ("evaluate", "evaluate")
    assert (run_folder / "sft_data_math" / "before_after.png").exists()
    card = (run_folder / "sft_model_math" / "README.md").read_text()
    assert "| held-out problems | 5 |" in card and "Not evaluated" not in card
    assert "| model | none: scripted replies in place of " in card


def test_nothing_to_train_on_says_what_to_try_and_writes_no_data_file(run_folder: Path, make_config: Any) -> None:
    nothing = {"agent_ratios": {"math_single_agent": 0.0}}
    with pytest.raises(NothingToTrainOnError, match="0 of 12"):
        collect_only(make_config(collect={"only_success": True, "num_episodes": 12, **nothing}))
    assert not data_files(run_folder / "sft_data_math")


def test_a_folder_that_cannot_be_written_is_found_before_collecting(
    run_folder: Path, make_config: Any, played: list[Any]
) -> None:
    with pytest.raises(TrainingRefusedError, match=r"train\.output_dir"):
        collect_and_train(make_config(train={"output_dir": "/proc/nope"}))
    (run_folder / "file").write_text("")
    with pytest.raises(ValueError, match=r"collect\.data_dir"):
        collect_and_train(make_config(collect={"data_dir": str(run_folder / "file")}))
    assert not played


def test_another_batch_draws_other_replies(run_folder: Path, make_config: Any, played: list[Any]) -> None:
    collect_only(make_config(collect={"batch": "monday"}))
    collect_only(make_config(collect={"batch": "tuesday"}))
    assert not {request.seed for request in played[:12]} & {request.seed for request in played[12:]}


def test_problems_whose_reference_answer_fails_are_named_and_not_played(
    run_folder: Path, make_config: Any, played: list[Any]
) -> None:
    rows = [
        {
            "text": f"Write a function to add {i} to a number.",
            "task_id": i,
            "code": f"def add(x): return x + {i if i != 3 else 0}",
            "test_list": [f"assert add(1) == {1 + i}"],
        }
        for i in range(1, 9)
    ]
    (run_folder / "mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    env = {"name": "code_env", "roles": ["code_single_agent"], "dataset": "mbpp.jsonl", "benchmark": "mbpp.jsonl"}
    with pytest.raises(ValueError, match="is left that is not held out"):
        collect_only(make_config(env=env))
    state = collect_only(make_config(env={**env, "benchmark": None}), return_state=True)
    report = state.result()
    assert [reason.partition(":")[0] for reason in report.left_out.values()] == ["3"]
    assert not any("add 3 to" in request.messages[0]["content"] for request in played)
    assert "## Problems that were left out" in (run_folder / "sft_data_code" / "report.md").read_text()
    assert logged_in_ui(state.state_details.flow_run_id, "left out: 1 of 7 problems")


def logged_in_ui(flow_run: UUID, text: str) -> bool:
    """Whether Prefect's server comes to have such a log record of a flow run."""
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run]))
    end = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while time.monotonic() < end:
            if any(text in log.message for log in client.read_logs(wanted)):
                return True
            time.sleep(0.2)
    return False


def test_what_is_logged_outside_of_flows_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    logging.getLogger("tasks.rollout.journal").warning("about no flow run")
    assert [str(warning.message) for warning in recwarn] == []


def written(folder: Path) -> dict[Path, bytes]:
    """What lies in a folder, Prefect's own results aside."""
    files = (path for path in folder.rglob("*") if path.is_file() and "results" not in path.parts)
    return {path: path.read_bytes() for path in files}


def test_a_dry_run_shows_what_would_be_trained_and_writes_nothing(
    run_folder: Path, make_config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    collect_only(make_config())
    (run_folder / "mine.jsonl").write_text('{"prompt": "What is 1 + 1?", "completion": "2"}\n')
    before = written(run_folder)
    (data,) = data_files(run_folder / "sft_data_math")
    path = {str(data): 1, "mine.jsonl": 3}
    capsys.readouterr()
    report = train_only(make_config(train={"dry_run": True, "data_path": path}))
    said = capsys.readouterr().out
    assert report.audits["shared_model"].rows == 15 and not report.trained
    for shown in (
        "dry run: nothing is trained",
        "weight 3: 3 in a pass",
        "1 of 16 rows",
        "memory of the CPU",
        "\\boxed",
    ):
        assert shown in said
    assert written(run_folder) == before
    with pytest.raises(ValueError, match=r"train\.dry_run: this flow has nothing to look at before it has played"):
        collect_and_train(make_config(train={"dry_run": True}))


def test_the_report_shows_what_was_trained_and_files_of_others_are_mixed(run_folder: Path, make_config: Any) -> None:
    import pandas as pd

    pd.DataFrame([{"prompt": "What is 1 + 1?", "completion": "It is two."}]).to_parquet("mine.parquet")
    chat = [{"from": "human", "value": "What is 2 + 1?"}, {"from": "gpt", "value": "It is three."}]
    Path("share.jsonl").write_text(json.dumps({"conversations": chat}) + "\n")
    weights = {"mine.parquet": 2, "share.jsonl": 1}
    report = train_only(make_config(train={"data_path": weights}))
    assert report.trained["shared_model"].rows == 3
    text = (run_folder / "sft_data_math" / "report.md").read_text()
    assert "## What was trained" in text and "It is two.<|im_end|>" in text and "weight 2: 2 in a pass" in text
    other = train_only(make_config(train={"data_path": {**weights, "share.jsonl": 4}}))
    assert other.trained["shared_model"].rows == 6 and not other.cached
    again = train_only(make_config(train={"data_path": {**weights, "share.jsonl": 4}}))
    assert again.cached == ("train",) and again.audits == other.audits
