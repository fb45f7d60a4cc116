"""Hidden states of many short branches that share a trunk, such as timesteps behind one header.

Each branch attends to its trunk and to itself, so the states are those of trunk and branch as one
segment. The trunk is computed once, however many branches follow it.

Shapes: T = tokens of trunks, then of branches, end to end; D = hidden size, H = heads, K = heads of
keys and values, E = head dim; n branches in a group have s tokens each, behind trunks of p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generalist.modeling.blocks import (
    Tables,
    feed_forward,
    grouped,
    heads_of,
    multiply,
    normalised,
    normalised_heads,
    project,
    rotary_tables,
    side_by_side,
    split_alike,
)
from generalist.modeling.fused import rotate


@dataclass(frozen=True)
class Group:
    """Trunks of one length with branches of one length.

    Attributes:
        trunk_tokens: p, at least 1.
        branch_tokens: s.
        branches: of each of the trunks, in order.
    """

    trunk_tokens: int
    branch_tokens: int
    branches: tuple[int, ...]

    @property
    def all_trunk_tokens(self) -> int:
        """Tokens of all its trunks."""
        return self.trunk_tokens * len(self.branches)

    @property
    def all_branch_tokens(self) -> int:
        """Tokens of all its branches."""
        return self.branch_tokens * sum(self.branches)


def hidden_of_branches(
    decoder: nn.Module, embedded: Tensor, position_ids: Tensor, groups: Sequence[Group]
) -> Tensor:
    """(tokens of all branches, D) final hidden states, in order.

    Args:
        decoder: one that `generalist.modeling.segments.can_run_segments`.
        embedded: (T, D) what goes into the first block: the trunks of all groups, then the
            branches of all groups.
        position_ids: (T,) int64; a branch goes on where its trunk ends.
        groups: say how the tokens hang together.
    """
    hidden = embedded
    tables = rotary_tables(decoder, hidden, position_ids)
    trunk_tokens = sum(group.all_trunk_tokens for group in groups)
    *blocks, last = decoder.layers
    for block in blocks:
        hidden = hidden + _attend(block, hidden, tables, groups)
        hidden = hidden + feed_forward(block, hidden, half=False)
    # In the last block a trunk serves as keys and values alone.
    tips = hidden[trunk_tokens:]
    tips = tips + _attend(last, hidden, tables, groups, trunks=False)
    tips = tips + feed_forward(last, tips, half=False)
    return normalised(decoder.norm, tips)


def _attend(
    block: Any, hidden: Tensor, tables: Tables, groups: Sequence[Group], *, trunks: bool = True
) -> Tensor:
    """(T, D), what every token reads; without `trunks` that of the branches' tokens alone."""
    attention = block.self_attn
    heads, keys = heads_of(attention.q_proj, attention), heads_of(attention.k_proj, attention)
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    normed = normalised(block.input_layernorm, hidden)
    projected = project(projections, normed, attention, half=False)
    mixed, value = projected.split([heads + keys, keys], dim=1)
    mixed = rotate(normalised_heads(mixed, attention, "qk"), *tables)
    query, key = mixed.split([heads, keys], dim=1)
    sizes = [group.all_trunk_tokens for group in groups]
    sizes += [group.all_branch_tokens for group in groups]
    parts = list(split_alike(grouped(query, key, value), sizes))
    of_trunks, of_branches = parts[: len(groups)], parts[len(groups) :]
    outputs = []
    stems = []  # keys and values of each group's trunks
    for group, part in zip(groups, of_trunks, strict=True):
        q, k, v = (side_by_side(each, group.trunk_tokens) for each in part)
        stems.append((k, v))
        if trunks:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=attention.scaling)
            outputs.append(out.transpose(1, 2).flatten(0, 1))
    for group, part, stem in zip(groups, of_branches, stems, strict=True):
        outputs.append(_branches(group, part, stem, attention.scaling))
    output = attention.o_proj
    return multiply(torch.cat(outputs).flatten(1), output.weight, output.bias, half=False)


def _branches(
    group: Group, part: Sequence[Tensor], stem: tuple[Tensor, Tensor], scaling: float
) -> Tensor:
    """(n s, H, E): what the branches of a group read from their trunks and from themselves."""
    q, k, v = (side_by_side(each, group.branch_tokens) for each in part)  # (n, H, s, E)
    counts = torch.tensor(group.branches, device=q.device)
    keys, values = (
        torch.cat([each.repeat_interleave(counts, dim=0, output_size=len(q)), own], dim=2)
        for each, own in zip(stem, (k, v), strict=True)
    )
    mask = None
    if group.branch_tokens > 1:
        shape = (group.branch_tokens, group.trunk_tokens + group.branch_tokens)
        mask = torch.ones(shape, dtype=torch.bool, device=q.device).tril(group.trunk_tokens)
    out = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=scaling)
    return out.transpose(1, 2).flatten(0, 1)
