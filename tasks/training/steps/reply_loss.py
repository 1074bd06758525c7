"""The loss on trained tokens, with the vocabulary's logits at their places alone, and never many at once.

Over a vocabulary of 150,000 the logits are most of a small model's memory and much of its time, and those of prompts
are computed for nothing.
"""

from __future__ import annotations

import importlib.util
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

LOGITS_AT_ONCE = 2**26
"""In elements; 256 MiB in fp32."""


def use_reply_loss(model: Any) -> None:
    """Have a causal model return the summed loss of trained tokens instead of logits.

    Its `forward` then takes `input_ids`, `places` and `targets` (see `MicroBatch`) and what its body takes, and gives
    the sum in nats, in fp32. It is called as ever, so whatever is wrapped around a model stays in use.
    """
    logits_forward = model.forward
    summed = _from_hidden_states if _has_plain_head(model) else _from_logits(logits_forward)
    model.forward = MethodType(summed, model)


@torch.no_grad()
def _has_plain_head(model: Any) -> bool:
    """Whether logits are hidden states times a matrix and nothing else: some models scale or cap them afterwards."""
    head, was_training = model.get_output_embeddings(), model.training
    if type(head) is not nn.Linear or head.bias is not None:
        return False
    model.eval()
    try:
        ids = torch.arange(5, device=model.device)[None]
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        return torch.equal(head(hidden), model(input_ids=ids, use_cache=False).logits)
    finally:
        model.train(was_training)


def _from_hidden_states(model: Any, input_ids: Tensor, places: Tensor, targets: Tensor, **body: Any) -> Tensor:
    hidden = model.get_decoder()(input_ids=input_ids, use_cache=False, **body).last_hidden_state
    trained = hidden.reshape(-1, hidden.shape[-1])[places]
    return _head_loss(trained, model.get_output_embeddings().weight, targets)


def _from_logits(logits_forward: Any) -> Any:
    def summed(model: Any, input_ids: Tensor, places: Tensor, targets: Tensor, **body: Any) -> Tensor:
        logits = logits_forward(input_ids=input_ids, use_cache=False, **body).logits
        return cross_entropy(logits.reshape(-1, logits.shape[-1])[places].float(), targets, reduction="sum")

    return summed


def _head_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    if hidden.is_cuda and importlib.util.find_spec("liger_kernel") is not None:
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        loss: Tensor = liger_fused_linear_cross_entropy(hidden, weight, targets, reduction="sum")
        return loss
    return _HeadLoss.apply(hidden, weight, targets)  # type: ignore[no-untyped-call, no-any-return]


class _HeadLoss(torch.autograd.Function):
    """Summed cross entropy of `hidden @ weight.T`, whose gradients are made at once: no logits are kept for them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """hidden (trained, size), weight (vocabulary, size), targets (trained,)."""
        needs_hidden, needs_weight, _ = ctx.needs_input_grad
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        at_once = max(1, LOGITS_AT_ONCE // len(weight))
        with torch.autocast(kind, enabled=False):
            cast_weight = weight.to(dtype)
            for begin in range(0, len(hidden), at_once):
                part, wanted = hidden[begin : begin + at_once].to(dtype), targets[begin : begin + at_once, None]
                logits = linear(part, cast_weight).float()
                log_sum = logits.logsumexp(-1, keepdim=True)
                total += (log_sum - logits.gather(-1, wanted)).sum()
                if d_hidden is None and d_weight is None:
                    continue
                d_logits = logits.sub_(log_sum).exp_()  # what the model expects, less what is so
                d_logits = d_logits.scatter_add_(-1, wanted, -torch.ones_like(log_sum)).to(dtype)
                if d_hidden is not None:
                    d_hidden[begin : begin + at_once] = d_logits @ cast_weight
                if d_weight is not None:
                    d_weight += d_logits.T @ part
        ctx.save_for_backward(d_hidden, None if d_weight is None else d_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return (
            None if d_hidden is None else d_hidden * d_total.to(d_hidden.dtype),
            None if d_weight is None else d_weight * d_total.to(d_weight.dtype),
            None,
        )
