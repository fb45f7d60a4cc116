"""Products in bfloat16 are float32's to within bfloat16's rounding, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from generalist.modeling.half import (
    ROW_MULTIPLE,
    gated_feed_forward,
    half_linear,
    is_plain,
    rounded,
)

NEAR = 0.02
"""Of the norm: some products of numbers with 8 bits each."""


def feed_forward(**changed) -> LlamaMLP:
    torch.manual_seed(0)
    return LlamaMLP(LlamaConfig(hidden_size=32, intermediate_size=80, **changed))


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == expected.dtype == torch.float32 and found.shape == expected.shape
    assert (found - expected).norm() <= NEAR * expected.norm()


@pytest.mark.parametrize("rows", [0, 1, ROW_MULTIPLE, ROW_MULTIPLE + 1, 3 * ROW_MULTIPLE - 1])
def test_rows_are_filled_up_with_zeros(rows):
    x = torch.randn(rows, 5)
    out = rounded(x)
    assert len(out) % ROW_MULTIPLE == 0 and len(out) - rows < ROW_MULTIPLE
    assert torch.equal(out[:rows], x.bfloat16()) and not out[rows:].any()


@pytest.mark.parametrize("rows", [0, 1, 64, 100])
def test_a_product_and_its_gradients(rows):
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 48, generator=generator, requires_grad=True)
    weight = torch.randn(40, 48, generator=generator, requires_grad=True)
    grow = torch.randn(rows, 40, generator=generator)
    expected, found = F.linear(x, weight), half_linear(x, weight)
    assert_near(found, expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, [x, weight], grow),
        torch.autograd.grad(expected, [x, weight], grow),
        strict=True,
    ):
        assert_near(mine, theirs)


@pytest.mark.parametrize("rows", [0, 1, 64, 100])
def test_a_feed_forward_layer_and_its_gradients(rows):
    mlp = feed_forward()
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 32, generator=generator, requires_grad=True)
    grow = torch.randn(rows, 32, generator=generator)
    assert is_plain(mlp)
    expected, found = mlp(x), gated_feed_forward(mlp, x)
    assert_near(found, expected)
    inputs = [x, *mlp.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(found, inputs, grow),
        torch.autograd.grad(expected, inputs, grow),
        strict=True,
    ):
        assert_near(mine, theirs)


def test_products_are_summed_in_float32():
    """4,096 ones in bfloat16 stop at 256, because 257 is no bfloat16."""
    ones = torch.ones(1, 4096)
    assert half_linear(ones, ones).item() == 4096


def test_what_is_not_finite_stays_so():
    x = torch.tensor([[1.0, float("inf")], [float("nan"), 1.0]])
    found = half_linear(x, torch.ones(1, 2))
    assert torch.isinf(found[0]).all() and torch.isnan(found[1]).all()


@pytest.mark.parametrize("changed", [{"hidden_act": "gelu"}, {"mlp_bias": True}])
def test_another_feed_forward_layer_is_told_apart(changed):
    assert not is_plain(feed_forward(**changed))


def test_weights_stay_as_they_are():
    layer = nn.Linear(8, 8, bias=False)
    before = layer.weight.detach().clone()
    half_linear(torch.randn(3, 8), layer.weight).sum().backward()
    assert layer.weight.dtype == torch.float32 and torch.equal(layer.weight, before)
    assert layer.weight.grad.dtype == torch.float32
