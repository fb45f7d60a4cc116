"""A product is that of the plain matrix, however its weight is stored."""

from __future__ import annotations

import pytest
import torch

from generalist.decoding import products
from generalist.decoding.products import Blocked, Dense, product

with_blocks = pytest.mark.skipif(
    not products._has_blocks(), reason="no kernels for bfloat16 in this CPU's oneDNN"
)


@pytest.mark.parametrize("tokens", [1, 2, 31, 43, 344])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_matrix(tokens: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(tokens)
    weight = torch.randn(48, 80, generator=generator).to(dtype)
    states = torch.randn(tokens, 48, generator=generator).to(dtype)
    residual = torch.randn(tokens, 80, generator=generator).to(dtype)
    exact = states.double() @ weight.double()
    near = {"rtol": 2e-2, "atol": 0.1} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-4}
    stored = product(weight)
    for found, expected in (
        (stored(states), exact),
        (stored.added(residual, states), exact + residual.double()),
    ):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, **near)


def test_float32_stays_a_view_of_the_weight() -> None:
    weight = torch.randn(4, 6)
    stored = product(weight[:, 2:])
    assert isinstance(stored, Dense)
    weight.zero_()
    assert not stored(torch.ones(1, 4)).any()


@with_blocks
def test_bfloat16_is_stored_in_blocks() -> None:
    weight = torch.randn(4, 6).bfloat16()
    assert isinstance(product(weight), Blocked)


def test_a_pytorch_without_the_kernels_multiplies_as_usual(monkeypatch) -> None:
    monkeypatch.setattr(products, "_has_blocks", lambda: False)
    assert isinstance(product(torch.randn(4, 6).bfloat16()), Dense)
