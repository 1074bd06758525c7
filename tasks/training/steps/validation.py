"""The loss on problems that are held back: measured before the first step, after each pass and after the last step.

If the best weights are to be published, they are kept on disk as soon as they are measured, and outlast the process.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainerCallback

from tasks.rollout.artifact import publish_folder
from tasks.training.job import ValidationPoint
from tasks.training.progress.log import VALIDATION_LOSS

if TYPE_CHECKING:
    from tasks.training.steps.step_trainer import StepTrainer

_WEIGHTS, _POINT = "weights.safetensors", "point.json"


class Validation(TrainerCallback):
    """Says when the loss is measured, and keeps the weights that had the least."""

    def __init__(self, trainer: StepTrainer, steps_per_epoch: int, best: BestWeights | None) -> None:
        self._trainer = trainer
        self._steps_per_epoch = steps_per_epoch
        self._best = best

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Also where a training is resumed that was told to end while it measured."""
        measured = {logged["step"] for logged in state.log_history if VALIDATION_LOSS in logged}
        if self._is_due(state) and state.global_step not in measured:
            self._trainer.evaluate()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._is_due(state):
            control.should_evaluate = True

    def _is_due(self, state: Any) -> bool:
        return bool(state.global_step % self._steps_per_epoch == 0 or state.global_step >= state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self._best and logs and VALIDATION_LOSS in logs and state.global_step:  # at 0 nothing is trained yet
            point = ValidationPoint(step=state.global_step, loss=logs[VALIDATION_LOSS])
            self._best.offer(self._trainer.model, point, is_writer=state.is_world_process_zero)


class BestWeights:
    """A folder with the trained weights that had the least validation loss so far, and what it was."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        point = folder / _POINT
        self.point = ValidationPoint.model_validate_json(point.read_text()) if point.is_file() else None
        """When they were had; None: no loss was measured yet."""

    def offer(self, model: Any, point: ValidationPoint, is_writer: bool) -> None:
        """Keep the model's weights if they are better. A resumed training offers some once more, which are not.

        All processes call it, and one of them writes.
        """
        if not math.isfinite(point.loss) or (self.point is not None and self.point.loss <= point.loss):
            return
        self.point = point
        weights = {name: _whole(parameter) for name, parameter in _trained(model).items()}
        if is_writer:
            with publish_folder(self._folder) as folder:
                save_file(weights, folder / _WEIGHTS)
                (folder / _POINT).write_text(point.model_dump_json())

    def restore(self, model: Any) -> None:
        """Give a model the weights that are kept here."""
        weights = load_file(self._folder / _WEIGHTS)
        with torch.no_grad():
            for name, parameter in _trained(model).items():
                parameter.copy_(_as_part_of(parameter, weights[name]))


def _trained(model: Any) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _whole(parameter: Tensor) -> Tensor:
    """A parameter in this process's memory, also where each device has a part of it."""
    whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
    return whole.detach().cpu().contiguous()


def _as_part_of(parameter: Tensor, whole: Tensor) -> Tensor:
    if not isinstance(parameter, DTensor):
        return whole
    return distribute_tensor(whole.to(parameter.device), parameter.device_mesh, parameter.placements)
