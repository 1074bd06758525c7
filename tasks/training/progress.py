"""How far a training is: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tasks.training.job import TrainProgress

LINE_EVERY_S = 10.0


@contextmanager
def show_training() -> Iterator[Callable[[TrainProgress], None]]:
    """Show steps and loss on stderr, in the form that suits where stderr goes."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps, {task.fields[loss]}, ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        row = bar.add_task("training", total=None, loss="loading the model")
        yield lambda at: bar.update(row, total=at.total_steps, completed=at.step, loss=f"loss {at.loss:.3f}")


def _lines() -> Callable[[TrainProgress], None]:
    due = time.monotonic() + LINE_EVERY_S

    def say(at: TrainProgress) -> None:
        nonlocal due
        if time.monotonic() >= due or at.step == at.total_steps:
            due = time.monotonic() + LINE_EVERY_S
            print(f"training: step {at.step}/{at.total_steps}, loss {at.loss:.3f}", file=sys.stderr, flush=True)

    return say
