"""Branches that share a trunk: the states of trunk and branch as one segment, and its gradients."""

from __future__ import annotations

import pytest
import torch

from generalist.modeling.branches import Group, hidden_of_branches
from generalist.modeling.segments import hidden_at
from tests.modeling.test_segments import small_model

GROUPS = [Group(1, 1, (3, 2)), Group(4, 2, (1, 3)), Group(3, 3, (2,))]


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("kv_heads", [4, 1])
def test_equal_those_of_whole_segments_and_so_do_the_gradients(architecture, kv_heads):
    decoder = small_model(architecture, kv_heads).get_decoder()
    width = decoder.config.hidden_size
    trunk_tokens = sum(group.all_trunk_tokens for group in GROUPS)
    branch_tokens = sum(group.all_branch_tokens for group in GROUPS)
    generator = torch.Generator().manual_seed(0)
    size = (trunk_tokens + branch_tokens, width)
    embedded = torch.randn(size, generator=generator, requires_grad=True)
    # Each branch as a segment of its own, with a copy of its trunk before it.
    places, lengths, tips, positions = [], [], [], torch.empty(len(embedded), dtype=torch.int64)
    trunk, branch, total = 0, trunk_tokens, 0
    for group in GROUPS:
        for count in group.branches:
            of_trunk = range(trunk, trunk + group.trunk_tokens)
            positions[list(of_trunk)] = torch.arange(group.trunk_tokens)
            for _ in range(count):
                own = range(branch, branch + group.branch_tokens)
                positions[list(own)] = group.trunk_tokens + torch.arange(group.branch_tokens)
                places += [*of_trunk, *own]
                lengths.append(group.trunk_tokens + group.branch_tokens)
                total += lengths[-1]
                tips += range(total - group.branch_tokens, total)
                branch += group.branch_tokens
            trunk += group.trunk_tokens
    whole = hidden_at(decoder, embedded[places], positions[places], lengths, torch.tensor(tips))
    shared = hidden_of_branches(decoder, embedded, positions, GROUPS)
    torch.testing.assert_close(shared, whole, rtol=1e-5, atol=1e-5)
    weights = torch.randn(whole.shape, generator=generator)
    given = [embedded, *decoder.parameters()]
    gradients = [
        torch.autograd.grad((out * weights).sum(), given, allow_unused=True)
        for out in (shared, whole)
    ]
    for one, other in zip(*gradients, strict=True):
        if other is None:  # the table of embeddings
            assert one is None
            continue
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
