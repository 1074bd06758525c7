"""A LoRA layer's forward and backward in as few passes over memory as there are products in it.

peft computes the adapter beside the layer in the adapter's fp32: it casts the input, scales and adds, and each of that
reads and writes as much as the layer's own product. Here the adapter's weights are cast, which are small, and its
product is added in place.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear


def fuse_lora(model: nn.Module) -> int:
    """Have each plain LoRA layer of a peft model compute so; others stay as they are. Returns how many do."""
    plain = [module for module in model.modules() if _is_plain(module)]
    for layer in plain:
        layer.forward = MethodType(_forward, layer)
    return len(plain)


def _is_plain(layer: nn.Module) -> bool:
    """Whether it computes W x + scaling B A x: no dropout, bias or variant such as DoRA, and weights of one kind."""
    if type(layer) is not LoraLinear or type(layer.base_layer) is not nn.Linear or layer.fan_in_fan_out:
        return False
    return (
        len(layer.active_adapters) == 1
        and not layer.lora_variant
        and layer.base_layer.weight.dtype.is_floating_point
        and not layer.base_layer.weight.requires_grad
        and all(isinstance(dropout, nn.Identity) for dropout in layer.lora_dropout.values())
        and not any(layer.lora_bias.values())
    )


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if layer.disable_adapters or layer.merged or args or kwargs:
        output: Tensor = type(layer).forward(layer, x, *args, **kwargs)
        return output
    (name,) = layer.active_adapters
    base, a, b = layer.base_layer, layer.lora_A[name].weight, layer.lora_B[name].weight
    output = _LoraLinear.apply(x, base.weight, base.bias, a, b, layer.scaling[name])  # type: ignore[no-untyped-call]
    return output


class _LoraLinear(torch.autograd.Function):
    """x (..., inputs), weight (outputs, inputs) frozen, bias (outputs,) frozen or None, a (rank, inputs), b (outputs,
    rank). All is computed in the precision of `weight`; gradients of a and b come in theirs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            flat = x.reshape(-1, x.shape[-1]).to(weight.dtype)
            cast_a, cast_b = a.to(weight.dtype), b.to(weight.dtype)
            inner = flat @ cast_a.T
            output = linear(flat, weight, bias).addmm_(inner, cast_b.T, alpha=scale)
        ctx.save_for_backward(flat, weight, cast_a, cast_b, inner)
        ctx.scale, ctx.kinds = scale, (x.dtype, a.dtype, b.dtype)
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, d_output: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, a, b, inner = ctx.saved_tensors
        x_dtype, a_dtype, b_dtype = ctx.kinds
        d_flat = d_output.reshape(-1, d_output.shape[-1])
        d_inner = (d_flat @ b).mul_(ctx.scale)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (d_flat @ weight).addmm_(d_inner, a).to(x_dtype).view(*d_output.shape[:-1], -1)
        d_a, d_b = d_inner.T @ flat, (d_flat.T @ inner).mul_(ctx.scale)
        return d_x, None, None, d_a.to(a_dtype), d_b.to(b_dtype), None
