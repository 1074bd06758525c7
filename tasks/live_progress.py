"""How far a run is, in the Prefect UI: one artifact for each thing that takes its time, updated now and then.

A thread of its own reads the figures and talks to the API, so that nothing that plays or trains ever waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.utilities.context import get_task_and_flow_run_ids

from tasks.artifacts import own_client, say_not_shown
from tasks.training.job import TrainEvent, TrainProgress

EVERY_S = 5.0
LAST_UPDATE_S = 5.0
"""How long the run waits for the last update, which has the final figures."""


class Figures(Protocol):
    """What is shown. It is read while others change it."""

    total: int
    """0: nothing has begun."""

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1."""

    @property
    def line(self) -> str:
        """The rest."""


@contextmanager
def live_progress(key: str, title: str, figures: Figures) -> Iterator[None]:
    """Show `figures` as long as the block runs, and a last time at its end. What never begins is not shown."""
    over = threading.Event()
    watch = _Watch(key, title, figures)
    # With a copy of this context, for in it stands which run this is, and of which server.
    thread = threading.Thread(target=copy_context().run, args=(watch.run, over), name=key, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(LAST_UPDATE_S)


class _Watch:
    def __init__(self, key: str, title: str, figures: Figures) -> None:
        self._key = key
        self._title = title
        self._figures = figures
        self._artifact: UUID | None = None
        self._shown = ""
        self._has_failed = False

    def run(self, over: threading.Event) -> None:
        """Show what has changed, every few seconds, until it is over."""
        task_run_id, flow_run_id = get_task_and_flow_run_ids()
        if flow_run_id is None:
            return
        is_over = False
        while not is_over:
            try:
                with own_client() as client:
                    while not is_over:
                        is_over = over.wait(EVERY_S)
                        self._show(client, flow_run_id, task_run_id)
            except Exception as error:  # the run is not about this
                if not self._has_failed:
                    say_not_shown(self._key, error)
                self._has_failed = True
                is_over = is_over or over.wait(EVERY_S)

    def _show(self, client: SyncPrefectClient, flow_run_id: UUID, task_run_id: UUID | None) -> None:
        line = f"{self._figures.line}: {self._title}"  # a card of the UI shows the first words
        if not self._figures.total or line == self._shown:
            return
        percent = round(100 * self._figures.share, 1)
        if self._artifact is None:
            made = ArtifactCreate(
                key=self._key,
                type="progress",
                description=line,
                data=percent,
                flow_run_id=flow_run_id,
                task_run_id=task_run_id,
            )
            self._artifact = client.create_artifact(made).id
        else:
            client.update_artifact(self._artifact, ArtifactUpdate(description=line, data=percent))
        self._shown = line


class TrainingFigures:
    """The figures of a training; it is called with each of its events."""

    def __init__(self) -> None:
        self.total = self._done = self._steps = self._tokens = 0
        self._seconds = self._loss = 0.0

    def __call__(self, event: TrainEvent) -> None:
        if isinstance(event, TrainProgress):
            self.total, self._done, self._loss = event.total_steps, event.step, event.loss
            self._steps += 1
            self._tokens += event.tokens
            self._seconds += event.seconds

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1."""
        return self._done / self.total if self.total else 0.0

    @property
    def line(self) -> str:
        """Steps, loss, speed, and what is left at it."""
        left = timedelta(seconds=round((self.total - self._done) * self._seconds / max(self._steps, 1)))
        speed = self._tokens / max(self._seconds, 1e-3)
        return f"step {self._done}/{self.total}, loss {self._loss:.3f}, {speed:,.0f} tokens/s, ETA {left}"
