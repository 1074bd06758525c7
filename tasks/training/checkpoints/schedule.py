"""When a checkpoint is written: after minutes, tenths of the steps and passes, at the end, and when told to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from tasks.training.processes.stopping import StopSignal

_SHARE = 0.1
"""Of the steps; after each there is a checkpoint if it costs little."""
_MOST_TIME = 0.05
"""Of the time that may go into those that are not for the minutes."""


class CheckpointSchedule(TrainerCallback):
    """Tells the trainer after which steps to save, and to stop after one if the process was told to end.

    All processes of a training decide alike: the first one's clock counts, and each one's signal.
    """

    def __init__(self, every_min: float, stop: StopSignal, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_min * 60
        self.stop = stop
        self._clock = clock
        self._saved_at = self._save_took_s = self._saved_at_epoch = 0.0
        self._saved_at_step = 0
        self.stopped = False
        """Whether the training ended before its last step because it was told to."""

    def saved(self, state: Any, took_s: float) -> None:
        """Hear that a checkpoint of this state was written."""
        self._saved_at, self._save_took_s = self._clock(), took_s
        self._saved_at_step, self._saved_at_epoch = state.global_step, state.epoch or 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved(state, took_s=0.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        is_last = state.global_step >= state.max_steps
        stop, save = self._agreed(args.device, self.stop.came, is_last or self._is_due(state))
        if stop and not is_last:
            control.should_training_stop = self.stopped = True
        if stop or save:
            control.should_save = True

    def _is_due(self, state: Any) -> bool:
        since = self._clock() - self._saved_at
        if since >= self._every_s:
            return True
        share = max(1, math.ceil(_SHARE * state.max_steps))
        passed_a_share = state.global_step // share > self._saved_at_step // share
        passed_the_data = math.floor(state.epoch) > math.floor(self._saved_at_epoch)
        return (passed_a_share or passed_the_data) and since * _MOST_TIME >= self._save_took_s

    @staticmethod
    def _agreed(device: torch.device, stop: bool, save: bool) -> tuple[bool, bool]:
        """One process's wish to stop is all of theirs; whether to save is the first one's decision."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return stop, save
        is_first = torch.distributed.get_rank() == 0
        wishes = torch.tensor([stop, save and is_first], dtype=torch.int32, device=device)
        torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX)
        agreed = wishes.tolist()
        return bool(agreed[0]), bool(agreed[1])
