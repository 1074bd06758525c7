"""What a schedule changes: each night collects afresh, and a retry of the same night resumes."""

from __future__ import annotations

from datetime import UTC
from typing import TypeVar

from prefect.context import FlowRunContext

from flows.config import RunConfig

Config = TypeVar("Config", bound=RunConfig)


def with_scheduled_batch(config: Config) -> Config:
    """The config with `collect.batch` named after the scheduled time, if a schedule made this run and it has none."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if config.collect.batch is not None or run is None or not run.auto_scheduled or run.expected_start_time is None:
        return config
    batch = f"{run.expected_start_time.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
    return config.model_copy(update={"collect": config.collect.model_copy(update={"batch": batch})})
