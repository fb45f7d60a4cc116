"""Pieces of a transformer block of Llama and Qwen3, over tokens in one flat sequence.

Queries, keys and values are one product; norms and rotary positions are those of `fused.py`. With
`half` the matrix products are those of `half.py`: near the exact ones, not the same.

Shapes: T = tokens, D = hidden size, H = heads, K = heads of keys and values, E = head dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generalist.modeling.fused import rms_norm
from generalist.modeling.half import gated_feed_forward, half_linear, is_plain

Tables = tuple[Tensor, Tensor]
"""Cosine and sine of rotary positions, (T, 1, E/2)."""


def rotary_tables(decoder: nn.Module, hidden: Tensor, position_ids: Tensor) -> Tables:
    """The tables of (T,) positions, in the dtype of hidden."""
    cosine, sine = decoder.rotary_emb(hidden, position_ids[None])  # (1, T, E), its halves alike
    once = cosine.shape[-1] // 2
    return cosine[0, :, None, :once], sine[0, :, None, :once]


def heads_of(projection: nn.Module, attention: Any) -> int:
    """How many heads a projection makes."""
    return projection.out_features // attention.head_dim


def project(parts: Sequence[nn.Module], x: Tensor, attention: Any, half: bool) -> Tensor:
    """(T, heads of all parts, E): projections of x (T, D), as one product."""
    weight = torch.cat([part.weight for part in parts]) if len(parts) > 1 else parts[0].weight
    biases = [part.bias for part in parts if part.bias is not None]
    out = multiply(x, weight, torch.cat(biases) if biases else None, half)
    return out.unflatten(1, (-1, attention.head_dim))


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None, half: bool) -> Tensor:
    """x (T, in) times weight (out, in), plus bias."""
    if not half:
        return F.linear(x, weight, bias)
    product = half_linear(x, weight)
    return product if bias is None else product + bias


def feed_forward(block: Any, x: Tensor, half: bool) -> Tensor:
    """(T, D): what the feed-forward layer adds to x (T, D)."""
    normed = normalised(block.post_attention_layernorm, x)
    if half and is_plain(block.mlp):
        return gated_feed_forward(block.mlp, normed)
    return block.mlp(normed)


def normalised(norm: Any, x: Tensor) -> Tensor:
    """x (..., D) by one of the model's own norms."""
    return rms_norm(x, norm.weight, norm.variance_epsilon)


def normalised_heads(x: Tensor, attention: Any, which: str) -> Tensor:
    """Queries, keys, or both behind each other, x (T, heads, E), normalised head by head."""
    norms: list[Any] = [getattr(attention, f"{letter}_norm", None) for letter in which]
    if norms[0] is None:  # Qwen3 has them, Llama has not
        return x
    if len(norms) == 1:
        return normalised(norms[0], x)
    heads = [heads_of(getattr(attention, f"{letter}_proj"), attention) for letter in which]
    rows = [norm.weight.expand(n, -1) for norm, n in zip(norms, heads, strict=True)]
    return rms_norm(x, torch.cat(rows), norms[0].variance_epsilon)


def grouped(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each head of keys and values repeated for its group of query heads; all (tokens, H, E)."""
    times = query.shape[1] // key.shape[1]
    if times > 1:
        key, value = (x.repeat_interleave(times, dim=1) for x in (key, value))
    return query, key, value


def split_alike(tensors: Sequence[Tensor], sizes: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
    """Tensors cut alike along their first axis.

    By split, not by slices: the gradient of a slice is a tensor of the whole size.
    """
    return zip(*(x.split(sizes) for x in tensors), strict=True)


def side_by_side(x: Tensor, length: int) -> Tensor:
    """(n s, H, E) to (n, H, s, E)."""
    return x.unflatten(0, (-1, length)).transpose(1, 2)
