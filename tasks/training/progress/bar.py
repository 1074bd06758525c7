"""How far a training is: a bar on a terminal, a line every ten seconds elsewhere.

What happens between steps is a line in both.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tasks.training.job import OutOfMemory, Resumed, TrainEvent, TrainProgress

LINE_EVERY_S = 10.0


@contextmanager
def show_training() -> Iterator[Callable[[TrainEvent], None]]:
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

        def show(at: TrainEvent) -> None:
            if isinstance(at, TrainProgress):
                bar.update(row, total=at.total_steps, completed=at.step, loss=f"loss {at.loss:.3f}")
            else:
                bar.console.print(*_told(at), sep="\n", markup=False, highlight=False)

        yield show


def _told(at: OutOfMemory | Resumed) -> list[str]:
    """Lines about what happened between two steps."""
    if isinstance(at, OutOfMemory):
        return [
            f"training: out of memory in step {at.step}; each device reads {at.tokens:,} instead of "
            f"{at.tokens_before:,} tokens at once from here, and more often: the rows of a step stay the same"
        ]
    begins = f"goes on after step {at.step}, from a checkpoint" if at.step else "begins anew"
    return [f"training: {line}" for line in [*at.damaged, begins]]


def _lines() -> Callable[[TrainEvent], None]:
    due = time.monotonic() + LINE_EVERY_S

    def say(at: TrainEvent) -> None:
        nonlocal due
        if not isinstance(at, TrainProgress):
            print(*_told(at), sep="\n", file=sys.stderr, flush=True)
        elif time.monotonic() >= due or at.step == at.total_steps:
            due = time.monotonic() + LINE_EVERY_S
            print(f"training: step {at.step}/{at.total_steps}, loss {at.loss:.3f}", file=sys.stderr, flush=True)

    return say
