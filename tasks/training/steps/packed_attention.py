"""Attention within rows that stand behind each other in one batch, without a mask and without a look at other rows.

By flash attention where it is installed, by torch's own kernel for rows of uneven length on a GPU, else row by row.
Whether a model takes one of them is not looked up but tried: a row must come out as it does alone.
"""

from __future__ import annotations

import inspect
import logging
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.utils.import_utils import is_flash_attn_2_available

from tasks.training.rows.token_rows import TrainRow
from tasks.training.steps.packing import packed

_BY_ROWS, _BY_KERNEL = "winnow_rows", "winnow_varlen"
_MOST_DIFFERENCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Of a token's last hidden state, relative to its length: what rounding may do. Another row's tokens do far more."""

_logger = logging.getLogger(__name__)


def use_packed_attention(model: Any) -> bool:
    """Let a causal model keep packed rows apart, if it can. One that cannot is left as it was.

    Args:
        model: on the device that it is trained on. Called in evaluation mode, without gradients.
    """
    before = model.config._attn_implementation
    for name in _candidates(next(model.parameters())):
        try:
            model.set_attn_implementation(name)
            if _keeps_rows_apart(model):
                return True
        except Exception as error:  # a model's own code may fail in any way on what it does not take
            _logger.info("%s: %s", name, error)
    model.set_attn_implementation(before)
    return False


def _candidates(weight: Tensor) -> list[str]:
    AttentionInterface.register(_BY_ROWS, _attend_by_rows)
    AttentionInterface.register(_BY_KERNEL, _attend_by_kernel)
    if weight.device.type != "cuda" or weight.dtype == torch.float32:
        return [_BY_ROWS]
    return [*(["flash_attention_2"] if is_flash_attn_2_available() else []), _BY_KERNEL, _BY_ROWS]


@torch.no_grad()
def _keeps_rows_apart(model: Any) -> bool:
    """Whether each of two rows, one behind the other, comes out as it does alone."""
    body, was_training = model.get_decoder(), model.training
    device, vocabulary = model.device, model.config.get_text_config().vocab_size
    model.eval()
    try:
        lots = torch.Generator().manual_seed(0)
        rows = [TrainRow(torch.randint(vocabulary, (n,), generator=lots).numpy(), 1) for n in (7, 9)]
        both = packed(rows).to(device)
        together = body(input_ids=both.input_ids, use_cache=False, **both.body).last_hidden_state[0]
        alone = [
            body(input_ids=one.input_ids, use_cache=False, **one.body).last_hidden_state[0]
            for one in (packed([row]).to(device) for row in rows)
        ]
    finally:
        model.train(was_training)
    expected = torch.cat(alone).float()
    difference = (together.float() - expected).norm(dim=-1) / expected.norm(dim=-1)
    return bool(difference.max() < _MOST_DIFFERENCE.get(together.dtype, 1e-3))


def _attend_by_rows(
    module: Any,
    query: Tensor,  # (1, heads, tokens, head size)
    key: Tensor,  # (1, heads / group, tokens, head size)
    value: Tensor,
    attention_mask: Tensor | None,
    cu_seq_lens_q: Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Row by row. Without `cu_seq_lens_q` all tokens are one row."""
    _refuse_what_is_left_out(attention_mask, kwargs)
    lengths = [query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    outputs = [
        scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=True)
        for q, k, v in zip(*(torch.split(states, lengths, dim=2) for states in (query, key, value)), strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _attend_by_kernel(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """All rows in one call of torch's kernel, which knows no dropout."""
    _refuse_what_is_left_out(attention_mask, kwargs)
    if dropout or cu_seq_lens_q is None or max_length_q is None:
        return _attend_by_rows(module, query, key, value, attention_mask, cu_seq_lens_q, dropout, scaling)
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    return _varlen(q, k, v, cu_seq_lens_q, max_length_q, scaling)[None], None


def _varlen(
    query: Tensor,  # (tokens, heads, head size)
    key: Tensor,  # (tokens, heads / group, head size)
    value: Tensor,
    begins: Tensor,
    longest: int,
    scaling: float | None,
) -> Tensor:
    """torch's kernel, whose arguments are not the same in all versions."""
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
    output = varlen_attn(query, key, value, begins, begins, longest, longest, **options)
    return output if isinstance(output, Tensor) else output[0]


def _refuse_what_is_left_out(attention_mask: Tensor | None, kwargs: dict[str, Any]) -> None:
    """What some models add to attention, and what is not computed here."""
    for name in ("sliding_window", "s_aux", "softcap", "position_bias"):
        if kwargs.get(name) is not None:
            raise NotImplementedError(f"packed attention knows no {name}")
    if attention_mask is not None:
        raise NotImplementedError("packed attention takes no mask")
