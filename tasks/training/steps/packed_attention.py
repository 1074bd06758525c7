"""Attention within rows that stand behind each other in one batch, without a mask and without a look at other rows.

By torch's own kernel for rows of uneven length on a GPU, which is flash attention, else row by row. Both also let rows
look at tokens that they begin with alike and that stand there once; where only the flash-attn package takes a model,
rows are packed whole. What a model takes is not looked up but tried: a row must come out as it does alone.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.utils.import_utils import is_flash_attn_2_available

from tasks.training.rows.token_rows import TrainRow
from tasks.training.steps.packing import Layout, lay_out

_BY_ROWS, _BY_KERNEL = "winnow_rows", "winnow_varlen"
_MOST_DIFFERENCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Of a token's last hidden state, relative to its length: what rounding may do. Another row's tokens do far more."""

_logger = logging.getLogger(__name__)


def use_packed_attention(model: Any) -> Layout:
    """Let a causal model keep packed rows apart, if it can, and share what they begin with alike.

    Args:
        model: on the device that it is trained on. Called in evaluation mode, without gradients. One that can keep
            nothing apart is left as it was.

    Returns:
        The densest layout that it takes.
    """
    before = model.config._attn_implementation
    for name, layout in _candidates(next(model.parameters())):
        try:
            model.set_attn_implementation(name)
            if _keeps_rows_apart(model, layout):
                return layout
        except Exception as error:  # a model's own code may fail in any way on what it does not take
            _logger.info("%s, %s: %s", name, layout.value, error)
    model.set_attn_implementation(before)
    return Layout.PADDED


def _candidates(weight: Tensor) -> list[tuple[str, Layout]]:
    """From the fastest on. The package's own attention must not be tried with `SHARED`, which it would not notice."""
    AttentionInterface.register(_BY_ROWS, _attend_by_rows)
    AttentionInterface.register(_BY_KERNEL, _attend_by_kernel)
    by_rows = [(_BY_ROWS, Layout.SHARED), (_BY_ROWS, Layout.PACKED)]
    if weight.device.type != "cuda" or weight.dtype == torch.float32:
        return by_rows
    by_package = [("flash_attention_2", Layout.PACKED)] if is_flash_attn_2_available() else []
    return [(_BY_KERNEL, Layout.SHARED), *by_package, (_BY_KERNEL, Layout.PACKED), *by_rows]


@torch.no_grad()
def _keeps_rows_apart(model: Any, layout: Layout) -> bool:
    """Whether rows in one micro batch come out as they do alone: two that begin alike, and another one."""
    body, was_training = model.get_decoder(), model.training
    device, vocabulary = model.device, model.config.get_text_config().vocab_size
    lots = torch.Generator().manual_seed(0)
    first, second, other = (torch.randint(vocabulary, (n,), generator=lots).numpy() for n in (7, 9, 5))
    second[:4] = first[:4]
    rows = [TrainRow(ids, 1) for ids in (first, second, other)]

    def hidden(of: Sequence[TrainRow]) -> Tensor:
        batch = lay_out(of, layout, pad_id=0).to(device)
        states = body(input_ids=batch.input_ids, use_cache=False, **batch.body).last_hidden_state
        found: Tensor = states.reshape(-1, states.shape[-1])[batch.places].float()
        return found

    model.eval()
    try:
        together, alone = hidden(rows), torch.cat([hidden([row]) for row in rows])
    finally:
        model.train(was_training)
    difference = (together - alone).norm(dim=-1) / alone.norm(dim=-1)
    return bool(difference.max() < _MOST_DIFFERENCE.get(model.dtype, 1e-3))


def _attend_by_rows(
    module: Any,
    query: Tensor,  # (1, heads, tokens, head size)
    key: Tensor,  # (1, heads / group, tokens, head size)
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Row by row. Without `cu_seq_lens_q` all tokens are one row."""
    _refuse_what_is_left_out(attention_mask, kwargs)
    own = seen = [query.shape[2]]
    if (begins := kwargs.get("cu_seq_lens_q")) is not None:
        own, seen = begins.diff().tolist(), kwargs["cu_seq_lens_k"].diff().tolist()
        key, value = _looked_at(key, value, kwargs)
    parts = torch.split(query, own, dim=2), torch.split(key, seen, dim=2), torch.split(value, seen, dim=2)
    outputs = [
        scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if q.shape[2] == k.shape[2] else _behind(q.shape[2], k.shape[2], q.device),
            is_causal=q.shape[2] == k.shape[2],
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=True,
        )
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _behind(num_own: int, num_seen: int, device: torch.device) -> Tensor:
    """(own, seen): what the last tokens of a path may look at, themselves included."""
    return torch.ones(num_own, num_seen, dtype=torch.bool, device=device).tril(num_seen - num_own)


def _looked_at(key: Tensor, value: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Keys and values (1, heads, tokens, head size) of each row's path behind each other."""
    places = kwargs.get("key_places")
    return (key, value) if places is None else (key[:, :, places], value[:, :, places])


def _attend_by_kernel(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """All rows in one call of torch's kernel, which knows no dropout."""
    if dropout or kwargs.get("cu_seq_lens_q") is None:
        return _attend_by_rows(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    _refuse_what_is_left_out(attention_mask, kwargs)
    q, k, v = (states[0].transpose(0, 1) for states in (query, *_looked_at(key, value, kwargs)))
    return _varlen(q, k, v, scaling, **kwargs)[None], None


def _varlen(
    query: Tensor,  # (tokens, heads, head size)
    key: Tensor,  # (seen tokens, heads / group, head size)
    value: Tensor,
    scaling: float | None,
    *,
    cu_seq_lens_q: Tensor,
    cu_seq_lens_k: Tensor,
    max_length_q: int,
    max_length_k: int,
    **_: Any,
) -> Tensor:
    """torch's kernel, whose arguments are not the same in all versions. It counts causal order from the last tokens."""
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "scale" in known:
        options["scale"] = scaling
    elif scaling is not None:
        query = query * (scaling * math.sqrt(query.shape[-1]))
    if key.shape[1] != query.shape[1]:
        if "enable_gqa" in known:
            options["enable_gqa"] = True
        else:
            key, value = (s.repeat_interleave(query.shape[1] // s.shape[1], dim=1) for s in (key, value))
    output = varlen_attn(query, key, value, cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k, **options)
    return output if isinstance(output, Tensor) else output[0]


def _refuse_what_is_left_out(attention_mask: Tensor | None, kwargs: dict[str, Any]) -> None:
    """What some models add to attention, and what is not computed here."""
    for name in ("sliding_window", "s_aux", "softcap", "position_bias"):
        if kwargs.get(name) is not None:
            raise NotImplementedError(f"packed attention knows no {name}")
    if attention_mask is not None:
        raise NotImplementedError("packed attention takes no mask")
