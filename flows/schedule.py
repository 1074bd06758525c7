"""What a schedule changes: each night collects afresh, and a retry of the same night resumes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from flows.config import RunConfig

Config = TypeVar("Config", bound=RunConfig)


def with_scheduled_batch(config: Config) -> Config:
    """The config with `collect.batch` named after the scheduled time, if a schedule made this run and it has none."""
    context = FlowRunContext.get()
    batch = scheduled_batch(context.flow_run) if context and context.flow_run else None
    if batch is None or config.collect.batch is not None:
        return config
    return config.model_copy(update={"collect": config.collect.model_copy(update={"batch": batch})})


def run_start() -> datetime:
    """When this run was to start, which a retry does not change; outside of a run, now."""
    context = FlowRunContext.get()
    start = context.flow_run.expected_start_time if context and context.flow_run else None
    return start or datetime.now(UTC)


def scheduled_batch(run: FlowRun) -> str | None:
    """When a run was to start, which a retry does not change; None if no schedule made it."""
    if not run.auto_scheduled or run.expected_start_time is None:
        return None
    when = run.expected_start_time.astimezone(UTC)
    return f"{when:%Y-%m-%dT%H:%M}{f':{when:%S}' if when.second else ''}Z"
