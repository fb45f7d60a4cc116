"""The same hidden states as the plain forward pass, for less work, on a CPU.

What is left out changes nothing of what is computed:

- Packed segments lie end to end in one flat sequence without padding, and attention runs within
  each, for neighbours of equal length in one call; no mask over whole rows is built.
- Queries, keys and values are one product; norms and rotary positions are those of `fused.py`.
- In the last block a token without a target is needed as key and value and for nothing else, so
  queries, attention, projections and feed-forward run only where a hidden state is asked for. With
  4 blocks and a tenth of the tokens being targets that is a fifth of a training step.

With `half` the matrix products of the blocks are those of `half.py`: near, not the same.

Shapes: T = tokens of all segments, D = hidden size, H = heads, K = heads of keys and values,
E = head dim, M = positions asked for; n segments in a row have s tokens and m positions each.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

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


def can_run_segments(decoder: nn.Module) -> bool:
    """Whether the inside of this decoder is known well enough to leave out work in it."""
    known = type(decoder) in (LlamaModel, Qwen3Model)
    return known and not getattr(decoder, "has_sliding_layers", False)


def hidden_at(
    decoder: nn.Module,
    embedded: Tensor,
    position_ids: Tensor,
    segment_lengths: Sequence[int],
    index: Tensor,
    half: bool = False,
) -> Tensor:
    """(M, D) final hidden states at some positions of segments that lie end to end.

    Args:
        decoder: one that `can_run_segments`.
        embedded: (T, D) what goes into the first block.
        position_ids: (T,) int64, restarting at each segment.
        segment_lengths: tokens of each segment, in order; they add up to T. The fewer changes of
            length from one to the next, the fewer calls.
        index: (M,) int64, ascending.
        half: multiply in bfloat16.
    """
    hidden = embedded
    tables = rotary_tables(decoder, hidden, position_ids)
    *blocks, last = decoder.layers
    for block in blocks:
        hidden = hidden + _attend(block, hidden, tables, segment_lengths, half)
        hidden = hidden + feed_forward(block, hidden, half)
    asked = hidden.index_select(0, index)  # (M, D)
    if len(index):
        asked = asked + _attend_at(last, hidden, tables, segment_lengths, index, half)
    asked = asked + feed_forward(last, asked, half)
    return normalised(decoder.norm, asked)


def _attend(
    block: Any, hidden: Tensor, tables: Tables, segment_lengths: Sequence[int], half: bool
) -> Tensor:
    """(T, D): what every token reads from its own segment up to itself."""
    attention = block.self_attn
    normed = normalised(block.input_layernorm, hidden)
    heads, keys = heads_of(attention.q_proj, attention), heads_of(attention.k_proj, attention)
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    projected = project(projections, normed, attention, half)
    mixed, value = projected.split([heads + keys, keys], dim=1)
    mixed = rotate(normalised_heads(mixed, attention, "qk"), *tables)  # (T, H + K, E)
    query, key = mixed.split([heads, keys], dim=1)
    runs = [(length, sum(1 for _ in run)) for length, run in groupby(segment_lengths)]
    parts = split_alike(grouped(query, key, value), [length * n for length, n in runs])
    outputs = []
    for (length, _), run in zip(runs, parts, strict=True):
        q, k, v = (side_by_side(x, length) for x in run)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=attention.scaling)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # (n s, H, E)
    output = attention.o_proj
    return multiply(torch.cat(outputs).flatten(1), output.weight, output.bias, half)


def _attend_at(
    block: Any,
    hidden: Tensor,
    tables: Tables,
    segment_lengths: Sequence[int],
    index: Tensor,
    half: bool,
) -> Tensor:
    """(M, D): the same for the tokens at `index` alone."""
    attention = block.self_attn
    normed = normalised(block.input_layernorm, hidden)
    query = project([attention.q_proj], normed.index_select(0, index), attention, half)
    query = normalised_heads(query, attention, "q")  # (M, H, E)
    query = rotate(query, *(table.index_select(0, index) for table in tables))
    projected = project([attention.k_proj, attention.v_proj], normed, attention, half)
    key, value = projected.split(projected.shape[1] // 2, dim=1)
    key = rotate(normalised_heads(key, attention, "k"), *tables)  # (T, K, E)
    ends = torch.tensor(segment_lengths).cumsum(0)
    segment = torch.searchsorted(ends, index, right=True)
    counts = torch.bincount(segment, minlength=len(segment_lengths)).tolist()
    within = index - (ends - torch.tensor(segment_lengths))[segment]  # (M,) place in its segment
    kinds = groupby(zip(segment_lengths, counts, strict=True))
    runs = [(*kind, sum(1 for _ in run)) for kind, run in kinds]  # (s, m, n)
    asked = [count * n for _, count, n in runs]
    key, value = grouped(query, key, value)[1:]
    keys = split_alike((key, value), [length * n for length, _, n in runs])
    queries = split_alike((query, within), asked)
    outputs = []
    for (length, count, _), (k, v), (q, at) in zip(runs, keys, queries, strict=True):
        if count:
            allowed = torch.arange(length) <= at.view(-1, 1, count, 1)  # (n, 1, m, s)
            k, v, q = side_by_side(k, length), side_by_side(v, length), side_by_side(q, count)
            out = F.scaled_dot_product_attention(
                q, k, v, attn_mask=allowed, scale=attention.scaling
            )
            outputs.append(out.transpose(1, 2).flatten(0, 1))
    output = attention.o_proj
    return multiply(torch.cat(outputs).flatten(1), output.weight, output.bias, half)
