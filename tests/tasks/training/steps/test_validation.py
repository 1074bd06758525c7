"""The loss on rows that are held back, and the weights that had the least of it."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from tasks.training.config import TrainConfig
from tasks.training.job import ValidationPoint
from tasks.training.processes.stopping import StopSignal, TrainingStopped
from tasks.training.rows.token_data import token_data
from tasks.training.rows.token_rows import TokenRows
from tasks.training.steps.packing import MicroBatch
from tasks.training.steps.step_trainer import StepTrainer
from tasks.training.steps.trainer import make_trainer
from tasks.training.steps.validation import BestWeights
from tests.tasks.training.jobs import plain_job


def test_a_loss_that_is_no_number_is_never_the_best_one(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    best = BestWeights(tmp_path / "best")
    best.offer(model, ValidationPoint(step=1, loss=math.nan), is_writer=True)
    assert best.point is None
    best.offer(model, ValidationPoint(step=2, loss=3.0), is_writer=True)
    weights = model.weight.detach().clone()
    nn.init.constant_(model.weight, math.nan)
    best.offer(model, ValidationPoint(step=3, loss=math.nan), is_writer=True)
    kept = BestWeights(tmp_path / "best")
    assert kept.point == ValidationPoint(step=2, loss=3.0)
    kept.restore(model)
    assert torch.equal(model.weight, weights)


def test_a_training_that_is_told_to_end_while_it_measures_saves_and_measures_again(
    tiny_model: Path, tmp_path: Path
) -> None:
    data, work = tmp_path / "data.jsonl", tmp_path / "work"
    rows = [{"prompt": f"What is {i} + 1?", "completion": f"It is {i + 1}."} for i in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    work.mkdir()
    config = TrainConfig(num_train_epochs=2, lora_r=8, num_gpus=0, checkpoint_every_min=60)
    job = plain_job(tiny_model, data, config, tmp_path / "out", work, os.getpid())

    def trainer(stop: StopSignal) -> StepTrainer:
        tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
        tokens = token_data([data], tiny_model, tokenizer, {}, config)
        held_back = TokenRows(tokens, [data], np.arange(16, 20))
        return make_trainer(job, tokenizer, TokenRows(tokens, [data], np.arange(16)), held_back, stop=stop)

    stop = StopSignal()
    first = trainer(stop)
    loss = first._loss

    def told_while_measuring(model: Any, batch: MicroBatch) -> Tensor:
        stop.came = not model.training and first.state.global_step == 1
        return loss(model, batch)

    first._loss = told_while_measuring  # type: ignore[method-assign]
    first.mean_loss = _twice(first.mean_loss)  # type: ignore[method-assign]
    with pytest.raises(TrainingStopped, match="after step 1 of 2 and has saved a checkpoint"):
        first.train_from_newest()
    second = trainer(StopSignal())
    second.train_from_newest()
    measured = [entry["step"] for entry in second.state.log_history if "validation_loss" in entry]
    assert measured == [0, 1, 2]
    assert [entry["step"] for entry in second.state.log_history if "loss" in entry] == [1, 2]


def _twice(measure: Any) -> Any:
    """A validation of several parts, which is told to end in the first."""

    def measured(rows: TokenRows) -> float:
        measure(rows)
        found: float = measure(rows)
        return found

    return measured
