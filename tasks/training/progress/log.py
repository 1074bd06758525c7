"""`train_log.jsonl`: a line for each step, and for each time that the validation loss was measured.

It is the trainer's own history, which its checkpoints hold: a resumed training begins it anew with what came before the
checkpoint, so no step is in it twice and none is missing. It grows in the work folder and is published with the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback

from tasks.rollout.artifact import publish_file
from tasks.training.job import ValidationLosses, ValidationPoint

VALIDATION_LOSS = "validation_loss"
STEP_FIGURES = ("loss", "learning_rate", "grad_norm", "tokens", "trained_tokens", "seconds")
"""What the trainer logs of a step, and what `TrainProgress` passes on."""

Entry = Mapping[str, float]
"""Of a step: step, epoch, loss (nats per trained token), learning_rate, grad_norm (before it is clipped), tokens,
trained_tokens, seconds and tokens_per_second. Of a measurement: step, epoch, validation_loss."""


class Tracker(Protocol):
    """Whoever else is told of each entry."""

    def begin(self) -> None:
        """The training begins, or goes on."""

    def tell(self, entry: Entry) -> None:
        """An entry that was not told before."""

    def end(self) -> None:
        """There are no more."""


class TrainLog(TrainerCallback):
    """Writes the log, in the first process, and tells trackers of what they have not been told."""

    def __init__(self, path: Path, trackers: Sequence[Tracker]) -> None:
        self._path = path
        self._trackers = trackers
        self._told: set[tuple[int, bool]] = set()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        self._told = set(map(_place, read_log(self._path)))
        with publish_file(self._path) as tmp:
            write_log(entries(state.log_history), tmp)
        for tracker in self._trackers:
            tracker.begin()

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        for entry in entries(state.log_history[-1:]):
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(entry))
            if _place(entry) not in self._told:
                for tracker in self._trackers:
                    tracker.tell(entry)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            for tracker in self._trackers:
                tracker.end()


def entries(history: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """What of a trainer's history goes into the log."""
    return [entry for logged in history if (entry := _entry(logged))]


def write_log(log: Iterable[Entry], path: Path) -> None:
    """Write entries, one a line."""
    path.write_text("".join(map(_line, log)), encoding="utf-8")


def read_log(path: Path) -> list[Entry]:
    """The entries of a log that may still be written to; a line without its end is left out."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def tokens_per_second(log: Iterable[Entry]) -> float:
    """Tokens that were read in a second of the steps."""
    steps = [entry for entry in log if "loss" in entry]
    return sum(entry["tokens"] for entry in steps) / sum(entry["seconds"] for entry in steps)


def validation_losses(log: Iterable[Entry], published_step: int) -> ValidationLosses | None:
    """The losses on validation problems; None: there are none. `published_step`: whose weights are published."""
    points = [ValidationPoint(step=int(e["step"]), loss=e[VALIDATION_LOSS]) for e in log if VALIDATION_LOSS in e]
    if not points:
        return None
    return ValidationLosses(
        first=points[0],
        best=min((point for point in points if point.step), key=lambda point: point.loss),
        last=points[-1],
        published=next(point for point in points if point.step == published_step),
    )


def _entry(logged: Mapping[str, Any]) -> Entry | None:
    place = {"step": logged["step"], "epoch": round(logged.get("epoch") or 0.0, 6)}
    if VALIDATION_LOSS in logged:
        return {**place, VALIDATION_LOSS: logged[VALIDATION_LOSS]}
    if "loss" not in logged:
        return None
    speed = logged["tokens"] / logged["seconds"]
    return {**place, **{name: logged[name] for name in STEP_FIGURES}, "tokens_per_second": round(speed, 1)}


def _place(entry: Entry) -> tuple[int, bool]:
    """No two entries of a training have the same."""
    return int(entry["step"]), VALIDATION_LOSS in entry


def _line(entry: Entry) -> str:
    return json.dumps(entry) + "\n"
