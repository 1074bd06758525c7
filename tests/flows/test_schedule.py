"""Nightly runs: a night is named by when it was to start, so its retry resumes and the next night starts anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from prefect.client.schemas.objects import FlowRun

import flows  # noqa: F401  (its settings come before the first import of Prefect)
from flows.schedule import scheduled_batch

TWO_AT_NIGHT = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


def test_a_scheduled_run_is_named_by_when_it_was_to_start() -> None:
    run = FlowRun(flow_id=uuid4(), auto_scheduled=True, expected_start_time=TWO_AT_NIGHT)
    assert scheduled_batch(run) == "2026-11-22T02:00Z"
    soon = run.model_copy(update={"expected_start_time": TWO_AT_NIGHT + timedelta(seconds=30)})
    assert scheduled_batch(soon) == "2026-11-22T02:00:30Z"


def test_a_run_on_demand_is_not_named() -> None:
    assert scheduled_batch(FlowRun(flow_id=uuid4(), expected_start_time=TWO_AT_NIGHT)) is None
