"""What a user sees of a training while it runs."""

from __future__ import annotations

import pytest

from tasks.training.job import OutOfMemory, Resumed, TrainProgress
from tasks.training.progress.bar import show_training


def step(at: int) -> TrainProgress:
    return TrainProgress(
        step=at,
        total_steps=9,
        epoch=0.1,
        loss=1.5,
        learning_rate=1e-3,
        grad_norm=1.0,
        tokens=100,
        trained_tokens=10,
        seconds=0.5,
    )


def test_what_happens_between_steps_is_told_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with show_training() as on_progress:
        on_progress(Resumed(step=4, damaged=["checkpoint x is damaged"]))
        on_progress(step(5))
        on_progress(OutOfMemory(step=6, tokens_before=8192, tokens=4096))
        on_progress(step(9))
    with show_training() as on_progress:
        on_progress(Resumed(step=0, damaged=[]))
    assert capsys.readouterr().err.splitlines() == [
        "training: checkpoint x is damaged",
        "training: goes on after step 4, from a checkpoint",
        "training: out of memory in step 6; each device reads 4,096 instead of 8,192 tokens at once from here, and "
        "more often: the rows of a step stay the same",
        "training: step 9/9, loss 1.500",
        "training: begins anew",
    ]
