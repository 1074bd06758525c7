"""Rows that go through the model together give what they give alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM

from tasks.training.rows.token_rows import TrainRow
from tasks.training.steps.packed_attention import use_packed_attention
from tasks.training.steps.packing import MicroBatch, packed, padded, split_rows
from tasks.training.steps.reply_loss import use_reply_loss

SMALL = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


@given(
    lengths=st.lists(st.integers(1, 50), max_size=30),
    most_tokens=st.integers(1, 120),
    is_packed=st.booleans(),
)
def test_micro_batches_hold_each_row_once_and_no_more_tokens_than_they_may(
    lengths: list[int], most_tokens: int, is_packed: bool
) -> None:
    groups = split_rows(lengths, most_tokens, is_packed)
    assert sorted(at for group in groups for at in group) == list(range(len(lengths)))
    for group in groups:
        sizes = [lengths[at] for at in group]
        tokens = sum(sizes) if is_packed else max(sizes) * len(sizes)
        assert tokens <= most_tokens or len(group) == 1


def make_rows(vocabulary: int) -> list[TrainRow]:
    lots = np.random.default_rng(0)
    return [TrainRow(lots.integers(vocabulary, size=n), prompt) for n, prompt in ((9, 4), (30, 1), (2, 1), (17, 16))]


def loss_and_gradients(model: Any, batches: Sequence[MicroBatch]) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    losses = []
    for batch in batches:
        loss = model(batch.input_ids, places=batch.places, targets=batch.targets, **batch.body)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum(), [p.grad.clone() for p in model.parameters()]


def alone(model: Any, rows: Sequence[TrainRow]) -> tuple[Tensor, list[Tensor]]:
    """By transformers itself, one row at a time."""
    model.zero_grad()
    losses = []
    for row in rows:
        ids = torch.from_numpy(row.input_ids)[None]
        labels = ids.clone()
        labels[:, : row.prompt_length] = -100
        loss = model(input_ids=ids, labels=labels).loss * (labels != -100).sum()
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum(), [p.grad.clone() for p in model.parameters()]


def assert_same(found: tuple[Tensor, list[Tensor]], expected: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max() + 1))


@pytest.mark.parametrize("checkpointed", [False, True])
def test_packed_rows_have_the_loss_and_the_gradients_that_they_have_alone(tiny_model: Path, checkpointed: bool) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model).train()
    rows = make_rows(model.config.vocab_size)
    expected = alone(model, rows)
    assert use_packed_attention(model)
    use_reply_loss(model)
    if checkpointed:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_same(loss_and_gradients(model, [packed(rows)]), expected)
    assert_same(loss_and_gradients(model, [packed(rows[:1]), packed(rows[1:])]), expected)


def test_padded_rows_have_the_loss_and_the_gradients_that_they_have_alone(tiny_model: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model).train()
    rows = make_rows(model.config.vocab_size)
    expected = alone(model, rows)
    use_reply_loss(model)
    assert_same(loss_and_gradients(model, [padded(rows, pad_id=5)]), expected)


@pytest.mark.parametrize("config", ["softcap", "sliding"])
def test_models_that_cannot_be_packed_or_that_bend_their_logits_are_trained_as_they_are(config: str) -> None:
    torch.manual_seed(0)
    model: Any = (
        Gemma2ForCausalLM(Gemma2Config(**SMALL, query_pre_attn_scalar=8, final_logit_softcapping=3.0))
        if config == "softcap"
        else MistralForCausalLM(MistralConfig(**SMALL, sliding_window=8))
    )
    attention = model.config._attn_implementation
    rows = make_rows(90)
    expected = alone(model.train(), rows)
    assert not use_packed_attention(model)
    assert model.config._attn_implementation == attention
    use_reply_loss(model)
    assert_same(loss_and_gradients(model, [padded(rows, pad_id=0)]), expected)


def test_rows_that_are_not_kept_apart_are_noticed(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    monkeypatch.setattr("tasks.training.steps.packed_attention._candidates", lambda _: ["sdpa"])
    assert use_packed_attention(model)  # transformers finds the rows by their positions
    model.get_decoder().forward = _blind_to_positions(model.get_decoder().forward)
    assert not use_packed_attention(model)


def _blind_to_positions(forward: Any) -> Any:
    return lambda input_ids, **_: forward(input_ids=input_ids, use_cache=False)
