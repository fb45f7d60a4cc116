"""Muon by shapes: the same as one matrix after the other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from generalist.training.muon import BatchedMuon


@pytest.fixture
def layers() -> list[nn.Linear]:
    torch.manual_seed(0)
    sizes = [(8, 24), (24, 8), (8, 24), (16, 16), (24, 8), (5, 40)]
    return [nn.Linear(inputs, outputs, bias=False) for inputs, outputs in sizes]


def test_equals_the_optimizer_of_torch_but_for_rounding(layers):
    theirs = copy.deepcopy(layers)
    weights, references = ([each.weight for each in group] for group in (layers, theirs))
    start = [weight.detach().clone() for weight in weights]
    ours = BatchedMuon(weights, lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(
        references, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(5):
        for mine, other in zip(weights, references, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        ours.step()
        reference.step()
    for mine, other, first in zip(weights, references, start, strict=True):
        moved = (other - first).norm()
        assert (mine - other).norm() < 0.02 * moved  # bfloat16
        torch.testing.assert_close(
            ours.state[mine]["momentum_buffer"], reference.state[other]["momentum_buffer"]
        )


def test_a_matrix_without_a_gradient_stays_as_it_is(layers):
    weights = [each.weight for each in layers]
    idle = weights[2].detach().clone()
    optimizer = BatchedMuon(weights, lr=0.02, weight_decay=0.1)
    for weight in weights[:2] + weights[3:]:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert torch.equal(weights[2], idle)
    assert weights[2] not in optimizer.state
    assert all(torch.isfinite(weight).all() for weight in weights)
