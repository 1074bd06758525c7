"""The loss curve is a picture, of few steps and of many."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.image import imread

from tasks.training.progress.curve import draw_loss


@pytest.mark.parametrize("steps", [1, 60, 250])
def test_a_log_is_drawn_with_its_validation_losses(tmp_path: Path, steps: int) -> None:
    log = [{"step": n, "loss": 2 / n} for n in range(1, steps + 1)]
    draw_loss(log, tmp_path / "bare.png")
    draw_loss([*log, {"step": steps, "validation_loss": 1.0}], tmp_path / "measured.png", published_step=1)
    bare, measured = imread(tmp_path / "bare.png"), imread(tmp_path / "measured.png")
    assert bare.shape == measured.shape == (420, 720, 4)
    assert bare.std() > 0 and (bare != measured).any()
