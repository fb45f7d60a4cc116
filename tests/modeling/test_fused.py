"""Norm and rotation: the values and gradients of the formulas, in every dtype they meet."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers.models.llama.modeling_llama import rotate_half

from generalist.modeling.fused import rms_norm, rotate


@pytest.mark.parametrize("rows", [None, 3])  # one weight, or one for each head
def test_the_norm_and_its_gradients(rows: int | None):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, 8, generator=generator, requires_grad=True)
    shape = (8,) if rows is None else (rows, 8)
    weight = torch.randn(shape, generator=generator, requires_grad=True)
    grow = torch.randn(x.shape, generator=generator)
    wanted = functional.rms_norm(x, (8,), None, 1e-6) * weight
    found = rms_norm(x, weight, 1e-6)
    torch.testing.assert_close(found, wanted)
    expected = torch.autograd.grad(wanted, (x, weight), grow)
    torch.testing.assert_close(torch.autograd.grad(found, (x, weight), grow), expected)


def test_the_norm_of_zeros_is_zero_with_finite_gradients():
    x = torch.zeros(2, 4, requires_grad=True)
    out = rms_norm(x, torch.ones(4), 1e-6)
    out.sum().backward()
    assert not out.any() and torch.isfinite(x.grad).all()


def test_the_norm_computes_in_float32_and_returns_what_it_got():
    x = torch.full((1, 4096), 300.0, dtype=torch.float16)  # whose squares float16 cannot hold
    out = rms_norm(x, torch.ones(4096), 0.0)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out, torch.ones_like(out))


def test_the_rotation_and_its_gradient():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 2, 8, generator=generator, requires_grad=True)
    angles = torch.rand(6, 1, 4, generator=generator)
    grow = torch.randn(x.shape, generator=generator)
    both = torch.cat((angles, angles), dim=-1)
    wanted = x * both.cos() + rotate_half(x) * both.sin()
    found = rotate(x, angles.cos(), angles.sin())
    torch.testing.assert_close(found, wanted)
    (expected,) = torch.autograd.grad(wanted, x, grow)
    torch.testing.assert_close(torch.autograd.grad(found, x, grow)[0], expected)
    assert found.norm(dim=-1).allclose(x.norm(dim=-1))
