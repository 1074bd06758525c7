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
from tasks.training.steps.packing import Layout, MicroBatch, lay_out, packed, padded, split_rows
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


def row_of(ids: Sequence[int]) -> TrainRow:
    return TrainRow(np.array(ids, dtype=np.int64), 1)


@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=30).map(row_of), min_size=1, max_size=20),
    most_tokens=st.integers(1, 80),
    layout=st.sampled_from(Layout),
)
def test_micro_batches_hold_each_row_once_and_no_more_tokens_than_they_may(
    rows: list[TrainRow], most_tokens: int, layout: Layout
) -> None:
    groups = split_rows(rows, most_tokens, layout)
    assert sorted(at for group in groups for at in group) == list(range(len(rows)))
    assert max(len(row.input_ids) for row in rows) == max(len(rows[at].input_ids) for at in groups[0])
    for group in groups:
        batch = lay_out([rows[at] for at in group], layout, pad_id=0)
        assert batch.num_tokens <= most_tokens or len(group) == 1
        assert batch.num_rows == len(group)


@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=30).map(row_of), min_size=1, max_size=20),
)
def test_each_token_of_a_shared_micro_batch_is_another_beginning_of_rows(rows: list[TrainRow]) -> None:
    beginnings = {tuple(row.input_ids[: n + 1]) for row in rows for n in range(len(row.input_ids))}
    batch = packed(rows, is_shared=True)
    assert batch.num_tokens == len(beginnings)
    assert batch.targets.tolist() == [int(token) for row in rows for token in row.input_ids[1:]]
    predicted_from = [int(token) for row in rows for token in row.input_ids[:-1]]
    assert batch.input_ids.flatten()[batch.places].tolist() == predicted_from


def make_rows(vocabulary: int) -> list[TrainRow]:
    """Two that have nothing in common, a conversation after two and three turns, its beginning, and the same again."""
    lots = np.random.default_rng(0)
    talk = lots.integers(vocabulary, size=30)
    other = [TrainRow(lots.integers(vocabulary, size=n), prompt) for n, prompt in ((9, 4), (2, 1))]
    return [*other, TrainRow(talk[:17], 16), TrainRow(talk, 20), TrainRow(talk[:9], 1), TrainRow(talk[:17], 12)]


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


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_packed_rows_have_the_loss_and_the_gradients_that_they_have_alone(
    tiny_model: Path, checkpointed: bool, is_shared: bool
) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model).train()
    rows = make_rows(model.config.vocab_size)
    expected = alone(model, rows)
    assert use_packed_attention(model) is Layout.SHARED
    use_reply_loss(model)
    if checkpointed:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert packed(rows, is_shared).num_tokens == (41 if is_shared else 84)
    assert_same(loss_and_gradients(model, [packed(rows, is_shared)]), expected)
    assert_same(loss_and_gradients(model, [packed(rows[:1], is_shared), packed(rows[1:], is_shared)]), expected)


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
    assert use_packed_attention(model) is Layout.PADDED
    assert model.config._attn_implementation == attention
    use_reply_loss(model)
    assert_same(loss_and_gradients(model, [padded(rows, pad_id=0)]), expected)


def test_rows_that_are_not_kept_apart_are_noticed(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    by_positions = [("sdpa", Layout.SHARED), ("sdpa", Layout.PACKED)]
    monkeypatch.setattr("tasks.training.steps.packed_attention._candidates", lambda _: by_positions)
    assert use_packed_attention(model) is Layout.PACKED  # transformers finds the rows by their positions
    model.get_decoder().forward = _blind_to_positions(model.get_decoder().forward)
    assert use_packed_attention(model) is Layout.PADDED


def test_micro_batches_do_not_copy_the_keys_of_a_long_beginning_for_ever_more_rows() -> None:
    rows = [row_of([*range(100), 200 + n]) for n in range(50)]
    groups = split_rows(rows, 150, Layout.SHARED)
    assert max(map(len, groups)) == 5
    assert max(map(len, split_rows(rows, 1500, Layout.SHARED))) == 50


def _blind_to_positions(forward: Any) -> Any:
    return lambda input_ids, **_: forward(input_ids=input_ids, use_cache=False)
