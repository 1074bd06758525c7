"""Tokens are drawn from the distribution that the rules describe."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from tasks.engines.base import Sampling
from tasks.engines.in_process.sampling import RowRules, draw_tokens, row_uniforms, token_list

LOGITS = torch.tensor([[2.0, 0.5, -1.0, 1.0, 0.0, -3.0]])
CPU = torch.device("cpu")
DRAWS = 20_000


def counts(sampling: Sampling) -> torch.Tensor:
    """How often each token comes in DRAWS draws, all rows in one batch."""
    rules = RowRules.of([sampling] * DRAWS, CPU)
    tokens = draw_tokens(LOGITS.expand(DRAWS, -1), rules, row_uniforms(0, DRAWS).tolist())
    return torch.bincount(tokens.flatten(), minlength=LOGITS.shape[1])


def chi_square(observed: torch.Tensor, expected: torch.Tensor) -> float:
    possible = expected > 0
    assert observed[~possible].sum() == 0
    return float((((observed - expected) ** 2)[possible] / expected[possible]).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_the_model_says(temperature: float) -> None:
    expected = (LOGITS[0] / temperature).softmax(-1) * DRAWS
    assert chi_square(counts(Sampling(temperature)), expected) < 20.5  # 5 degrees of freedom, p = 0.001


def test_top_k_leaves_the_likeliest_in_their_proportions() -> None:
    kept = torch.tensor([True, True, False, True, False, False])
    expected = LOGITS[0].masked_fill(~kept, -math.inf).softmax(-1) * DRAWS
    assert chi_square(counts(Sampling(top_k=3)), expected) < 13.8


def test_top_p_leaves_the_smallest_set_that_has_the_probability() -> None:
    # Probabilities are .53 .12 .03 .20 .07 .00: the first two in order have .73, too little; with .12, enough.
    kept = torch.tensor([True, True, False, True, False, False])
    expected = LOGITS[0].masked_fill(~kept, -math.inf).softmax(-1) * DRAWS
    assert chi_square(counts(Sampling(top_p=0.8)), expected) < 13.8


def test_min_p_leaves_what_is_not_much_less_likely_than_the_likeliest_at_the_temperature() -> None:
    # At temperature 2 the shares of the likeliest one's probability are 1 .47 .22 .61 .37 .08.
    kept = torch.tensor([True, True, False, True, True, False])
    expected = (LOGITS[0] / 2).masked_fill(~kept, -math.inf).softmax(-1) * DRAWS
    assert chi_square(counts(Sampling(2.0, min_p=0.3)), expected) < 16.3


def reference_draw(logits: list[float], sampling: Sampling, uniform: float) -> int:
    """The rules one after the other, in plain loops, in vLLM's order: temperature, min_p, top_k, top_p."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    weights = {token: math.exp((logit - max(logits)) / sampling.temperature) for token, logit in enumerate(logits)}
    weights = {token: weight for token, weight in weights.items() if weight >= sampling.min_p}
    ordered = sorted(weights, key=lambda token: -weights[token])[: sampling.top_k or None]
    total = sum(weights[token] for token in ordered)
    kept, mass = [], 0.0
    for token in ordered:
        if sampling.top_p >= 1 or mass < sampling.top_p:
            kept.append(token)
        mass += weights[token] / total
    point = uniform * sum(weights[token] for token in kept)
    for token in sorted(kept):
        point -= weights[token]
        if point < 0:
            return token
    return max(kept)


def test_rules_together_draw_what_a_plain_computation_draws() -> None:
    chance = random.Random(0)
    size = 300
    rows = [
        Sampling(
            chance.choice([0.0, 0.5, 1.0, 1.7]),
            chance.choice([1.0, 0.9, 0.5]),
            chance.choice([0, 0, 3, 20]),
            min_p=chance.choice([0.0, 0.02, 0.2, 1.0]),
        )
        for _ in range(size)
    ]
    logits = torch.tensor([[chance.gauss(0, 3) for _ in range(50)] for _ in rows])
    uniforms = [chance.random() for _ in rows]
    drawn = draw_tokens(logits, RowRules.of(rows, CPU), uniforms).flatten().tolist()
    assert drawn == [reference_draw(*row) for row in zip(logits.tolist(), rows, uniforms, strict=True)]


def test_rows_of_one_batch_keep_their_own_rules() -> None:
    rows = [Sampling(0), Sampling(1.0, top_k=1), Sampling(1.0, top_p=1e-9), Sampling(1.0)]
    tokens = draw_tokens(LOGITS.expand(4, -1), RowRules.of(rows, CPU), [0.999999] * 4)
    assert tokens.flatten().tolist() == [0, 0, 0, 5]


def test_logits_that_are_no_numbers_are_an_error() -> None:
    for sampling in (Sampling(0), Sampling(1.0)):
        logits = torch.cat([LOGITS, LOGITS * math.nan])
        drawn = draw_tokens(logits, RowRules.of([sampling] * 2, CPU), [0.5, 0.5])
        assert token_list(drawn[:1])[0] >= 0
        with pytest.raises(FloatingPointError, match="NaN"):
            token_list(drawn)
