"""Attention of one new token per row, without copying keys and values for the heads that share them.

transformers repeats the keys and values of each group of query heads, in every layer and for every token, whenever rows
are padded. One new token needs no causal order, so the heads of a group can stand where several new tokens would.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

_NAME = "winnow_grouped_sdpa"


def use_grouped_attention(model: Any) -> None:
    """Let a model that computes its attention by torch's sdpa do it so. Any other stays as it is."""
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(_NAME, _grouped_attention)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        model.set_attn_implementation(_NAME)


def _grouped_attention(
    module: Any,
    query: Tensor,  # (rows, heads, new tokens, head size)
    key: Tensor,  # (rows, heads / group, tokens, head size)
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    rows, heads, new_tokens, size = query.shape
    is_plain = new_tokens == 1 and kwargs.get("position_bias") is None and kwargs.get("cache") is None
    if not is_plain or (attention_mask is not None and attention_mask.shape[1] != 1):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    output = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return output.reshape(rows, 1, heads, value.shape[-1]), None
