"""Prefect events of this project, for automations to wait for; see `deployments/automations.yaml`."""

from __future__ import annotations

import logging
from typing import Any

from prefect.events import emit_event
from prefect.utilities.context import get_task_and_flow_run_ids

from tasks.dataset.nights import success_fall
from tasks.dataset.records import DatasetRef

logger = logging.getLogger(__name__)

NOTHING_COLLECTED = "winnow.nothing-collected"
SUCCESS_FELL = "winnow.success-rate.fell"
"""The payload of both has a `text` to read."""


def tell_nothing_collected(env: str, text: str) -> None:
    """No turn was kept. `text`: why, and what to try."""
    _emit(NOTHING_COLLECTED, env, {"text": f"{env}: {text}"})


def tell_if_success_fell(dataset: DatasetRef, max_drop: float) -> None:
    """Say so if a night succeeded less than the last seven: in the log, and as an event."""
    if fall := success_fall(dataset, max_drop):
        logger.warning("%s", fall.text)
        figures = {"rate": fall.rate, "usual": fall.usual, "nights": fall.nights}
        _emit(SUCCESS_FELL, fall.env, {"text": fall.text} | figures)


def _emit(event: str, env: str, payload: dict[str, Any]) -> None:
    if not any(get_task_and_flow_run_ids()):
        return  # a task's function by itself: nobody is to be told, and no server is to be started for it
    resource = {"prefect.resource.id": f"winnow.env.{env}", "prefect.resource.name": env}
    emit_event(event, resource, payload={"env": env} | payload)
