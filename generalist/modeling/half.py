"""Matrix products in bfloat16, for CPUs whose matrix units take nothing wider (AMX).

Only what is multiplied is rounded: weights, residuals, norms and attention stay in float32, and
products are summed in float32. `torch.autocast` would do the same and more, and is slower here: it
casts attention too, whose bfloat16 kernel is slow for short segments, and oneDNN compiles a kernel
for every new number of tokens. So rows are filled up to a multiple of 64: there are few numbers.

Shapes: T = tokens, D = hidden size, I = intermediate size, O = outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

ROW_MULTIPLE = 64

_silu_backward = torch.ops.aten.silu_backward


def rounded(x: Tensor) -> Tensor:
    """(T, D) in bfloat16, with rows of zeros up to a multiple of ROW_MULTIPLE."""
    rows = -(-len(x) // ROW_MULTIPLE) * ROW_MULTIPLE
    out = x.new_empty((rows, x.shape[1]), dtype=torch.bfloat16)
    out[: len(x)].copy_(x)
    out[len(x) :].zero_()
    return out


class _Linear(torch.autograd.Function):
    """y = x W^T."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x16, weight16 = rounded(x), weight.bfloat16()
        ctx.save_for_backward(x16, weight16)
        return (x16 @ weight16.T)[: len(x)].float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x16, weight16 = ctx.saved_tensors
        grad16 = rounded(grad)
        return (grad16 @ weight16)[: len(grad)].float(), (grad16.T @ x16).float()


class _GatedFeedForward(torch.autograd.Function):
    """y = (silu(x G^T) * x U^T) D^T: SwiGLU (Shazeer 2020, arXiv:2002.05202, section 2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        x16 = rounded(x)
        gate, up, down = gate.bfloat16(), up.bfloat16(), down.bfloat16()
        gated, upper = x16 @ gate.T, x16 @ up.T  # (rows, I)
        opened = F.silu(gated)
        inner = opened * upper
        ctx.save_for_backward(x16, gate, up, down, gated, upper, opened, inner)
        return (inner @ down.T)[: len(x)].float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x16, gate, up, down, gated, upper, opened, inner = ctx.saved_tensors
        grad16 = rounded(grad)
        to_down = grad16.T @ inner
        to_inner = grad16 @ down
        to_upper = to_inner * opened
        to_gated = _silu_backward(to_inner.mul_(upper), gated)
        to_x = torch.addmm(to_gated @ gate, to_upper, up)
        to_gate, to_up = to_gated.T @ x16, to_upper.T @ x16
        return to_x[: len(grad)].float(), to_gate.float(), to_up.float(), to_down.float()


def half_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (T, D) times the transpose of weight (O, D): (T, O) float32."""
    return _Linear.apply(x, weight)


def gated_feed_forward(mlp: Any, x: Tensor) -> Tensor:
    """The feed-forward layer of Llama and Qwen3, x (T, D) to (T, D) float32."""
    return _GatedFeedForward.apply(
        x, mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    )


def is_plain(mlp: Any) -> bool:
    """Whether a feed-forward layer is the one above: SiLU, and no biases."""
    layers = mlp.gate_proj, mlp.up_proj, mlp.down_proj
    return mlp.config.hidden_act == "silu" and all(layer.bias is None for layer in layers)
