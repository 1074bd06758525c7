"""A transformers `Trainer` whose checkpoints are published whole, and that stops where it can be resumed.

A checkpoint holds the trained weights, the optimizer, the learning rate's schedule, the random states of each process
and the losses so far: a resumed training goes on as if nothing had been.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from accelerate.utils import DistributedType, broadcast_object_list
from transformers import Trainer

from tasks.training.checkpoints.folder import Checkpoints
from tasks.training.checkpoints.schedule import CheckpointSchedule
from tasks.training.job import Resumed
from tasks.training.processes.stopping import TrainingStopped

_STATES = 3
"""Numbers in a checkpoint for each trained one: itself, and two moments of Adam."""


class StepAbandoned(BaseException):
    """A step was begun that is not done. The weights are those after the one before it."""


class CheckpointedTrainer(Trainer):
    """Saves in `checkpoints` when `schedule` says so. `on_resume` is told from where, in the first process."""

    def __init__(
        self,
        *,
        checkpoints: Checkpoints,
        schedule: CheckpointSchedule,
        on_resume: Callable[[Resumed], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._checkpoints, self._schedule, self._on_resume = checkpoints, schedule, on_resume
        self.add_callback(schedule)

    def train_from_newest(self) -> None:
        """Train to the end, from the newest whole checkpoint if there is one.

        Raises:
            CheckpointError: a checkpoint cannot be written, or not be gone on from.
            TrainingStopped: the process was told to end, and has saved a checkpoint.
        """
        newest = self._newest()
        with self._schedule.stop.waits():
            try:
                self.train(resume_from_checkpoint=newest)
            except StepAbandoned:
                self._schedule.stopped = True
                self._save_checkpoint(self.model_wrapped, None)
        if self._schedule.stopped:
            raise TrainingStopped(
                f"the training was told to end after step {self.state.global_step} of {self.state.max_steps} and has "
                "saved a checkpoint; run the same command again to go on from there"
            )

    def abandon_step_if_told_to(self) -> None:
        """To be called within a step, which may be long, while its random states can still be restored.

        Several processes end after the step instead: each of them waits for the others in it.

        Raises:
            StepAbandoned: the process was told to end.
        """
        if self._schedule.stop.came and self.accelerator.num_processes == 1:
            raise StepAbandoned

    def _newest(self) -> str | None:
        """The same in all processes: the first one looks for it."""
        found: list[str | None] = [None]
        if self.is_world_process_zero():
            path, damaged = self._checkpoints.newest_whole(self._form())
            found = [None if path is None else str(path)]
            if path is not None or damaged:
                self._on_resume(Resumed(step=self._checkpoints.step(path) if path else 0, damaged=damaged))
        if self.accelerator.num_processes > 1:
            broadcast_object_list(found)
        return found[0]

    def _form(self) -> str:
        kind = self.accelerator.distributed_type
        if kind == DistributedType.DEEPSPEED:
            return f"DeepSpeed on {self.accelerator.num_processes} GPUs"
        return "FSDP" if kind == DistributedType.FSDP else "a whole model on each device"

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._checkpoints.writing_folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, began = self.state.global_step, time.monotonic()
        if self._checkpoints.path(step).exists():
            return  # the end of a step is the end of a pass, too
        bytes_needed = _STATES * sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        with self._checkpoints.explained(step, bytes_needed, sweeps=self.args.should_save):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self._checkpoints.publish(step, self._form())
                self._checkpoints.forget_old()
        self.accelerator.wait_for_everyone()
        self._schedule.saved(self.state, time.monotonic() - began)
