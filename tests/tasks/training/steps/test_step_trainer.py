"""Whole steps: the same weights however much is read at once, and a stop at what is not finite."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from tasks.training.config import TrainConfig
from tasks.training.job import PROGRESS_FILE, Job
from tasks.training.rows.token_data import token_data
from tasks.training.rows.token_rows import TokenRows
from tasks.training.sft import run_job
from tasks.training.steps.step_trainer import DivergedError, StepTrainer
from tasks.training.steps.trainer import make_trainer
from tests.tasks.training.jobs import plain_job

CONFIG = TrainConfig(learning_rate=1e-2, num_train_epochs=2, lora_r=8, max_length=100, num_gpus=0)


@pytest.fixture
def make_job(tiny_model: Path, tmp_path: Path) -> Callable[..., Job]:
    """A job on 20 rows of uneven length: two passes of two steps."""
    data = tmp_path / "data.jsonl"
    rows = [{"prompt": f"What is {i} + 1?" + " Well?" * (i % 4), "completion": f"It is {i + 1}."} for i in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(name: str, **config: Any) -> Job:
        (tmp_path / f"{name}.work").mkdir()
        settings, work_dir = CONFIG.model_copy(update=config), tmp_path / f"{name}.work"
        return plain_job(tiny_model, data, settings, tmp_path / name, work_dir, os.getpid())

    return make


def trained(job: Job) -> dict[str, Tensor]:
    outcome = run_job(job)
    assert outcome.kind == "done", outcome.message
    weights: dict[str, Tensor] = load_file(job.output_dir / "adapter_model.safetensors")
    return weights


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Up to the order in which numbers are added; a step of Adam moves a weight by up to 1e-2."""
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def with_memory_for(num_tokens: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A model that runs out of memory in training above so many tokens. Returns where it notes what it was given."""
    forward, seen = Qwen3Model.forward, []

    def limited(self: Any, input_ids: Tensor, **kwargs: Any) -> Any:
        if self.training:
            seen.append(input_ids.numel())
        if self.training and input_ids.numel() > num_tokens:
            raise torch.OutOfMemoryError(f"no memory for {input_ids.numel()} tokens")
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(Qwen3Model, "forward", limited)
    return seen


def test_how_much_is_read_at_once_does_not_change_what_is_learnt(make_job: Callable[..., Job]) -> None:
    by_one = trained(make_job("by_one", per_device_train_batch_size=1, gradient_accumulation_steps=10))
    by_ten = trained(make_job("by_ten", per_device_train_batch_size=10, gradient_accumulation_steps=1))
    checkpointed = trained(
        make_job("again", per_device_train_batch_size=5, gradient_accumulation_steps=2, gradient_checkpointing=True)
    )
    assert_close(by_ten, by_one)
    assert_close(checkpointed, by_one)


def test_where_memory_runs_out_the_step_is_done_again_with_less_and_gives_the_same_weights(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    expected = trained(make_job("plain", **batch))
    seen = with_memory_for(125, monkeypatch)
    job = make_job("small", **batch)
    outcome = run_job(job)
    assert outcome.counts is not None and outcome.counts.steps == 6
    halvings = outcome.counts.out_of_memory
    assert {event.step for event in halvings} == {1} and 60 <= halvings[-1].tokens <= 125 < halvings[-1].tokens_before
    assert sum(tokens > 125 for tokens in seen) == len(halvings)
    events = [json.loads(line)["kind"] for line in (job.work_dir / PROGRESS_FILE).read_text().splitlines()]
    assert events == ["out_of_memory"] * len(halvings) + ["step"] * 6
    assert_close(load_file(job.output_dir / "adapter_model.safetensors"), expected)


def test_memory_for_less_than_one_row_ends_with_what_is_left_to_try(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_memory_for(25, monkeypatch)
    outcome = run_job(make_job("tiny"))
    assert outcome.kind == "out_of_memory" and "one row at a time in step 1 of 4" in outcome.message
    for name in ("train.max_length (now 100)", "train.lora_r (now 8)", "train.gradient_checkpointing"):
        assert name in outcome.message
    assert "\n" not in outcome.message


@pytest.fixture
def trainer(make_job: Callable[..., Job]) -> StepTrainer:
    job = make_job("one")
    tokenizer: Any = AutoTokenizer.from_pretrained(job.model_folder)
    tokens = token_data(job.data, job.model_folder, tokenizer, {}, job.config)
    return make_trainer(job, tokenizer, TokenRows(tokens, job.data, np.arange(20)))


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change_and_names_the_rows(trainer: StepTrainer) -> None:
    parameters = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in parameters.items()}
    next(iter(parameters.values())).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DivergedError, match=r"the norm of the gradient is (nan|inf) at step 1 of 4") as error:
        trainer.train()
    assert str(error.value).count("data.jsonl:") == 16 and "data.jsonl:21" not in str(error.value)
    assert all(torch.equal(p, before[name]) for name, p in parameters.items())


def test_the_mean_loss_is_that_of_the_steps_together(trainer: StepTrainer) -> None:
    rows, model = trainer._rows, trainer.model_wrapped
    alone = [batch for place in range(20) for batch in trainer._layouts(rows, np.array([place]))]
    expected = sum(float(trainer._loss(model, batch).detach()) for batch in alone)
    assert trainer.mean_loss(rows) == pytest.approx(expected / rows.trained.sum(), rel=1e-5)
