"""After which steps a checkpoint is written."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from transformers import TrainerControl, TrainerState

from tasks.training.checkpoints.schedule import CheckpointSchedule
from tasks.training.processes.stopping import StopSignal


class Clock:
    """Stands still between steps."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def saved_after(
    steps: int, steps_per_epoch: int, step_s: float, save_s: float, every_min: float = 10, stop_at: int | None = None
) -> list[int]:
    """Steps after which a training saves."""
    clock, stop = Clock(), StopSignal()
    schedule = CheckpointSchedule(every_min, stop, clock)
    state, control, args = (
        TrainerState(max_steps=steps, epoch=0),
        TrainerControl(),
        SimpleNamespace(device=torch.device("cpu")),
    )
    schedule.on_train_begin(args, state, control)
    saved = []
    while state.global_step < steps and not control.should_training_stop:
        clock.now += step_s
        state.global_step += 1
        state.epoch = state.global_step / steps_per_epoch
        stop.came = state.global_step == stop_at
        schedule.on_step_end(args, state, control)
        if control.should_save:
            saved.append(state.global_step)
            clock.now += save_s
            schedule.saved(state, save_s)
            control.should_save = False
    assert schedule.stopped == (stop_at is not None)
    return saved


def test_minutes_count_however_long_a_pass_is() -> None:
    assert saved_after(steps=100, steps_per_epoch=100, step_s=60, save_s=1) == list(range(10, 101, 10))
    assert saved_after(steps=20, steps_per_epoch=20, step_s=300, save_s=299) == list(range(2, 21, 2))


def test_a_short_training_saves_after_tenths_and_passes() -> None:
    saved = saved_after(steps=30, steps_per_epoch=10, step_s=1, save_s=0.01)
    assert saved == [3, 6, 9, 10, 12, 15, 18, 20, 21, 24, 27, 30]


def test_what_is_slow_to_save_is_saved_less_often_but_always_at_the_end() -> None:
    assert saved_after(steps=40, steps_per_epoch=10, step_s=1, save_s=0.5) == [4, 14, 24, 34, 40]
    assert saved_after(steps=40, steps_per_epoch=10, step_s=1, save_s=100) == [4, 40]


def test_a_training_that_is_told_to_end_saves_and_stops_after_the_step() -> None:
    assert saved_after(steps=40, steps_per_epoch=10, step_s=1, save_s=100, stop_at=7) == [4, 7]
