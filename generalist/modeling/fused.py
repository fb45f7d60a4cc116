"""The norm and the rotary embedding of Llama and Qwen3, each as one step with its own gradient.

Autograd walks over the activations once for every operation that makes up a formula, and again on
the way back; these two walk fewer times. The norm computes in float32, and both return their
input's dtype, as transformers does.

Shapes: T = tokens, E = width of what is normalised or rotated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _RmsNorm(torch.autograd.Function):
    """y = w x / r with r = sqrt(mean(x^2) + eps) (Zhang and Sennrich 2019, equation 4).

    With n = x / r and h = g w: dx = (h - n mean(h n)) / r, dw = the sum of g n over the rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        values = x.float()
        mean_square = torch.linalg.vector_norm(values, dim=-1, keepdim=True).square_()
        scale = mean_square.div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = values * scale
        ctx.save_for_backward(normed, scale, weight)
        return (normed * weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, scale, weight = ctx.saved_tensors
        product = grad * normed
        along = (product * weight).mean(dim=-1, keepdim=True)
        to_x = (grad * weight).addcmul_(normed, along, value=-1).mul_(scale)
        return to_x.to(grad.dtype), product.sum_to_size(weight.shape), None


class _Rotation(torch.autograd.Function):
    """Pairs (i, i + E/2) turned by an angle; the gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _turn(x, cosine, sine, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _turn(grad, cosine, sine, -1), None, None


def _turn(x: Tensor, cosine: Tensor, sine: Tensor, direction: int) -> Tensor:
    """x (..., E) with tables (..., E/2)."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    out = torch.empty_like(x)
    torch.mul(first, cosine, out=out[..., :half]).addcmul_(second, sine, value=-direction)
    torch.mul(second, cosine, out=out[..., half:]).addcmul_(first, sine, value=direction)
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (..., E) over the root of its mean square, times `weight`, (E,) or (rows of x, E)."""
    return _RmsNorm.apply(x, weight, eps)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, section 3.4.2) of x (T, heads, E), halves as pairs.

    cosine, sine: (T, 1, E/2), without gradients.
    """
    return _Rotation.apply(x, cosine.to(x.dtype), sine.to(x.dtype))
