"""Drawing the next token of many rows at once, each row by its own rule and its own random numbers.

A row's token is the inverse of its cumulative distribution at one uniform number. So it depends on nothing but the
row's logits, its `Sampling` and its seed: never on which other rows stand in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.engines.base import Sampling

_BROKEN = -1
"""Stands for the token of a row whose logits are not numbers."""


def row_uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """The uniform numbers in [0, 1) that a row with this seed uses, one per token."""
    return np.random.default_rng(seed).random(count)  # torch's CPU generator would use only 32 bits of the seed


@dataclass(frozen=True)
class RowRules:
    """The sampling rules of a batch's rows, each a tensor of shape (rows, 1) on the model's device."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    greedy: Tensor
    all_greedy: bool
    any_min_p: bool
    any_top: bool
    """Whether some row has a top_k or top_p: else the vocabulary need not be sorted."""

    @classmethod
    def of(cls, rows: Sequence[Sampling], device: torch.device) -> RowRules:
        """Stack the rules of some rows."""
        greedy = [s.temperature == 0 or s.top_k == 1 for s in rows]

        def column(values: list[float], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device).unsqueeze(1)

        return cls(
            temperature=column([s.temperature if s.temperature > 0 else 1.0 for s in rows], torch.float32),
            top_k=column([s.top_k for s in rows], torch.long),
            top_p=column([s.top_p for s in rows], torch.float32),
            min_p=column([s.min_p for s in rows], torch.float32),
            greedy=column(greedy, torch.bool),  # type: ignore[arg-type]
            all_greedy=all(greedy),
            any_min_p=any(s.min_p > 0 for s in rows),
            any_top=any(s.top_k > 0 or s.top_p < 1 for s in rows),
        )


def draw_tokens(logits: Tensor, rules: RowRules, uniforms: Sequence[float]) -> Tensor:
    """One token id per row, shape (rows, 1), from logits of shape (rows, vocabulary); `token_list` takes them out."""
    logits = logits.float()
    highest, likeliest = logits.max(-1, keepdim=True)
    # A broken row is told by its token, so that nothing is fetched from the device but the tokens.
    likeliest = likeliest.masked_fill(~highest.isfinite(), _BROKEN)
    if rules.all_greedy:
        return likeliest
    scaled = logits / rules.temperature
    if rules.any_min_p:  # before the others and after the temperature, as vLLM has it
        lowest_kept = highest / rules.temperature + rules.min_p.log()
        scaled = scaled.masked_fill(scaled < lowest_kept, -torch.inf)
    if rules.any_top:
        scaled = _topmost(scaled, rules)
    # In double, because a long vocabulary's small probabilities are lost in a float sum.
    cumulative = scaled.softmax(-1).double().cumsum(-1)
    points = torch.tensor(uniforms, dtype=torch.float64, device=logits.device).unsqueeze(1) * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, points, right=True).clamp_(max=logits.shape[-1] - 1)
    return torch.where(rules.greedy | (likeliest == _BROKEN), likeliest, drawn)


def token_list(drawn: Tensor) -> list[int]:
    """Drawn tokens, fetched from the device: the one time in a step that it is waited for.

    Raises:
        FloatingPointError: a row's logits are not numbers.
    """
    tokens: list[int] = drawn.squeeze(1).tolist()
    if _BROKEN in tokens:
        raise FloatingPointError("the model's logits are NaN or infinite; its weights or their dtype are broken")
    return tokens


def _topmost(scaled: Tensor, rules: RowRules) -> Tensor:
    """`scaled` with minus infinity for the tokens that top_k and then top_p leave out."""
    ordered = scaled.sort(-1, descending=True).values
    rank = torch.arange(scaled.shape[-1], device=scaled.device)
    in_top_k = (rules.top_k == 0) | (rank < rules.top_k)
    probability = ordered.masked_fill(~in_top_k, -torch.inf).softmax(-1)
    before = probability.cumsum(-1) - probability
    in_top_p = (rules.top_p >= 1) | (before < rules.top_p)
    num_kept = (in_top_k & in_top_p).sum(-1, keepdim=True).clamp(min=1)
    lowest_kept = ordered.gather(-1, num_kept - 1)
    return scaled.masked_fill(scaled < lowest_kept, -torch.inf)
