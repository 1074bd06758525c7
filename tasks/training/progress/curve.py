"""The loss over the steps, as a picture: in training and, where there are validation problems, on those."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tasks.training.progress.log import VALIDATION_LOSS, Entry

_DOTTED_UP_TO = 50
"""Steps that are drawn as dots."""
_SMOOTHED_FROM = 200
"""Steps from which on a mean is drawn over the noise of single ones."""


def draw_loss(log: Iterable[Entry], path: Path, published_step: int | None = None) -> None:
    """Draw a log into a PNG. `published_step`: whose weights are published, if they are not the last ones."""
    log = list(log)
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    steps = [entry["step"] for entry in log if "loss" in entry]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    is_long = len(steps) >= _SMOOTHED_FROM
    style = {"alpha": 0.35, "linewidth": 0.8} if is_long else {"marker": "." if len(steps) <= _DOTTED_UP_TO else ""}
    axes.plot(steps, losses, color="#1f6feb", label=None if is_long else "training", **style)
    if is_long:
        width = len(steps) // 50
        smooth = np.convolve(losses, np.ones(width) / width, "valid")
        axes.plot(steps[width - 1 :], smooth, color="#1f6feb", label=f"training, mean of {width} steps")
    measured = [(entry["step"], entry[VALIDATION_LOSS]) for entry in log if VALIDATION_LOSS in entry]
    if measured:
        axes.plot(*zip(*measured, strict=True), color="#d1570b", marker="o", label="validation problems")
    if published_step is not None:
        axes.axvline(published_step, color="#24292f", linewidth=0.8, linestyle=":", label="published")
    axes.set(xlabel="step", ylabel="loss per reply token (nats)", title="Loss")
    axes.grid(alpha=0.3)
    if measured or is_long:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120, format="png")
