"""Prefect events of this project, for automations to wait for; see `deployments/automations.yaml`."""

from __future__ import annotations

import logging

from prefect.events import emit_event

from tasks.dataset.nights import success_fall
from tasks.dataset.records import DatasetRef

logger = logging.getLogger(__name__)

NOTHING_COLLECTED = "winnow.nothing-collected"
SUCCESS_FELL = "winnow.success-rate.fell"
"""The payload of both has a `text` to read."""


def tell_nothing_collected(env: str, text: str) -> None:
    """No turn was kept. `text`: why, and what to try."""
    emit_event(NOTHING_COLLECTED, _resource(env), payload={"env": env, "text": f"{env}: {text}"})


def tell_if_success_fell(dataset: DatasetRef, max_drop: float) -> None:
    """Say so if a night succeeded less than the last seven: in the log, and as an event."""
    if fall := success_fall(dataset, max_drop):
        logger.warning("%s", fall.text)
        payload = {"env": fall.env, "text": fall.text, "rate": fall.rate, "usual": fall.usual, "nights": fall.nights}
        emit_event(SUCCESS_FELL, _resource(fall.env), payload=payload)


def _resource(env: str) -> dict[str, str]:
    return {"prefect.resource.id": f"winnow.env.{env}", "prefect.resource.name": env}
