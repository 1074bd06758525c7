"""What the Prefect UI shows of a run, by a real server; and that a run does without it."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.collect_and_train import collect_and_train
from flows.collect_only import collect_only
from flows.hooks import HOOKS, how_to_go_on
from tasks import live_progress as live
from tasks.artifacts import artifact_key, show_markdown
from tasks.live_progress import live_progress
from tasks.rollout.progress import Counts


def shown(flow_run_id: UUID) -> dict[str, list[Artifact]]:
    """The artifacts of a run, by key."""
    found: dict[str, list[Artifact]] = {}
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        for artifact in client.read_artifacts(artifact_filter=of_run):
            found.setdefault(artifact.key or "", []).append(artifact)
    return found


def run_id(state: Any) -> UUID:
    assert state.state_details.flow_run_id is not None
    return UUID(str(state.state_details.flow_run_id))


def test_a_run_shows_its_progress_its_numbers_and_what_was_trained(
    run_folder: Path, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.02)  # seldom enough to be one artifact each, however often
    state = collect_and_train(
        make_config(
            collect={"num_episodes": 24, "only_success": True},
            evaluate={"num_problems": 6},
            engine={"script": "improving:reply"},
        ),
        return_state=True,
    )
    report = state.result()
    artifacts = shown(run_id(state))
    progress = {key: found for key, found in artifacts.items() if found[0].type == "progress"}
    assert set(progress) == {
        "math-collecting",
        "math-evaluating-bare-model",
        "math-evaluating-adapter",
        "math-training",
    }
    for found in progress.values():
        (artifact,) = found
        assert artifact.data == 100
        assert artifact.description is not None
        assert "tokens/s" in artifact.description
    assert "24/24 episodes" in (progress["math-collecting"][0].description or "")

    funnel = {row["what"]: row for row in json.loads(str(artifacts["math-funnel"][0].data))}
    kept = sum(report.kept.values())
    assert funnel["episodes finished"] == {"what": "episodes finished", "number": "24", "share": "100.0 % of requested"}
    assert funnel["turns kept"]["number"] == str(kept)
    assert int(funnel["turns rejected: episode_failed"]["number"]) == 24 - kept
    statistics = str(artifacts["math-statistics"][0].data)
    assert f"| math_env | 24 | {report.succeeded} |" in statistics
    assert "| math_single_agent | 24 |" in statistics
    audit = str(artifacts["math-mask-audit"][0].data)
    assert f"| rows | {kept} |" in audit
    assert "\\boxed{" in audit
    before_after = str(artifacts["math-before-after"][0].data)
    assert "95 % interval" in before_after
    assert "### Problems that got worse" in before_after
    page = run_folder / "sft_data_math" / "report.html"
    assert artifacts["math-report-page"][0].data == f"[{page}]({page.as_uri()})"
    assert str(artifacts["math-report"][0].data) == (run_folder / "sft_data_math" / "report.md").read_text()


def test_a_run_that_fails_says_why_and_how_to_go_on(
    run_folder: Path, make_config: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(collect={"only_success": True}, engine={"script": "guessing:wrong_reply"})
    with caplog.at_level(logging.ERROR, "prefect.flow_runs"):
        state = collect_only(config, return_state=True)
    assert state.is_failed()
    (line,) = [record.getMessage() for record in caplog.records if "To go on:" in record.getMessage()]
    assert line.startswith("collect-only of math_env failed: NothingToTrainOnError: ")
    assert "\n" not in line
    (failure,) = shown(run_id(state))["math-failure"]
    assert "| why | NothingToTrainOnError: " in str(failure.data)
    assert "call the flow again with the same config" in str(failure.data)


def test_a_run_that_crashes_says_so_too(run_folder: Path) -> None:
    ids = []

    @flow(name="crashing", **HOOKS)
    def crash(config: dict[str, Any]) -> None:
        context = FlowRunContext.get()
        assert context is not None and context.flow_run is not None
        ids.append(context.flow_run.id)
        raise SystemExit("the machine gave up")

    with pytest.raises(SystemExit):
        crash({"env": {"name": "my_envs:Clock"}})
    (crashed,) = shown(ids[0])["clock-failure"]
    assert str(crashed.data).startswith("**crashing crashed.**")


def test_a_run_of_a_deployment_is_gone_on_with_by_its_id() -> None:
    run = FlowRun(flow_id=uuid4(), deployment_id=uuid4())
    assert how_to_go_on(run) == f"prefect flow-run retry {run.id}"


class Stuck:
    """Figures that never end."""

    total = 10
    share = 0.5
    line = "5/10"


@pytest.fixture
def silent_api() -> Iterator[str]:
    """The address of an API that takes every request and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/api"


def test_where_the_api_fails_a_run_goes_on_and_says_so(
    run_folder: Path, silent_api: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.01)
    monkeypatch.setattr(live, "LAST_UPDATE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refusing = f"http://127.0.0.1:{taken.getsockname()[1]}/api"

    @flow
    def run() -> UUID:
        context = FlowRunContext.get()
        assert context is not None and context.flow_run is not None
        with temporary_settings({PREFECT_API_URL: refusing}):
            show_markdown(artifact_key("math_env", "report"), "text", "description")
        with temporary_settings({PREFECT_API_URL: silent_api}):
            began = time.monotonic()
            with live_progress("math-collecting", "collecting", Stuck()):
                pass
            assert time.monotonic() - began < 30
        return context.flow_run.id

    with caplog.at_level(logging.WARNING, "tasks"):
        assert not shown(run())
    assert any("math-report cannot be shown" in record.getMessage() for record in caplog.records)


def test_what_never_begins_is_not_shown(run_folder: Path) -> None:
    @flow
    def run() -> UUID:
        with live_progress("math-collecting", "collecting", Counts()):
            pass
        context = FlowRunContext.get()
        assert context is not None and context.flow_run is not None
        return context.flow_run.id

    assert not shown(run())


def test_outside_of_a_run_nothing_is_shown_and_no_thread_stays() -> None:
    show_markdown("math-report", "text", "description")
    with live_progress("nobodys-progress", "collecting", Stuck()):
        pass
    assert "nobodys-progress" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("env", "what", "of", "key"),
    [
        ("math_env", "before after", None, "math-before-after"),
        ("my_envs.clock_env:ClockEnv", "funnel", "Tool_User", "clockenv-funnel-tool-user"),
    ],
)
def test_a_key_has_lowercase_letters_digits_and_dashes(env: str, what: str, of: str | None, key: str) -> None:
    assert artifact_key(env, what, of) == key
