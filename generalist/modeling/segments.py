"""The same hidden states as the plain forward pass, for less work, on a CPU.

Two things are left out, neither of which changes what is computed:

- Packed segments lie end to end in one flat sequence without padding, and attention runs within
  each; no mask over whole rows is built or multiplied out.
- In the last block a token without a target is needed as key and value and for nothing else, so
  queries, attention, projections and feed-forward run only where a hidden state is asked for. With
  4 blocks and a tenth of the tokens being targets that is a fifth of a training step.

Shapes: T = tokens of all segments, D = hidden size, H = heads, K = heads of keys and values,
E = head dim, M = positions asked for, s and m = tokens and positions of one segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.llama.modeling_llama import LlamaModel, rotate_half
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from generalist.errors import GeneralistError

SEGMENTS = "segments"  # name of the attention implementation


def can_run_segments(decoder: nn.Module) -> bool:
    """Whether the inside of this decoder is known well enough to leave out work in it."""
    known = type(decoder) in (LlamaModel, Qwen3Model)
    return known and not getattr(decoder, "has_sliding_layers", False)


def segment_attention(
    module: nn.Module,
    query: Tensor,  # (1, H, T, E)
    key: Tensor,  # (1, K, T, E)
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    segment_lengths: Sequence[int] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function for transformers: causal within each segment, (1, T, H, E).

    Without `segment_lengths` it is transformers' own sdpa.
    """
    if segment_lengths is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    lengths = list(segment_lengths)
    key, value = (_as_many_heads(x, query.shape[1]) for x in (key, value))
    # split, not slices: the gradient of a slice is a tensor of the whole size.
    parts = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    outputs = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling) for q, k, v in parts
    ]
    return torch.cat([output.transpose(1, 2) for output in outputs], dim=1), None


AttentionInterface.register(SEGMENTS, segment_attention)
AttentionMaskInterface.register(SEGMENTS, sdpa_mask)


def hidden_at(
    decoder: nn.Module,
    input_ids: Tensor,
    position_ids: Tensor,
    segment_lengths: Sequence[int],
    index: Tensor,
) -> Tensor:
    """(M, D) final hidden states at some positions of segments that lie end to end.

    Args:
        decoder: one that `can_run_segments`, with the attention implementation `SEGMENTS`.
        input_ids, position_ids: (T,) int64; positions restart at each segment.
        segment_lengths: tokens of each segment, in order; they add up to T.
        index: (M,) int64, ascending.

    Raises GeneralistError with another attention implementation, which would let segments see each
    other without a word.
    """
    if decoder.config._attn_implementation != SEGMENTS:
        raise GeneralistError(
            f"Segments end to end need the attention {SEGMENTS!r}, but the model has "
            f"{decoder.config._attn_implementation!r}; call model.set_attn_implementation first."
        )
    hidden = decoder.embed_tokens(input_ids[None])  # (1, T, D)
    rotary = decoder.rotary_emb(hidden, position_ids[None])  # two of (1, T, E)
    *blocks, last = decoder.layers
    for block in blocks:
        hidden = block(
            hidden,
            attention_mask=None,
            position_embeddings=rotary,
            use_cache=False,
            segment_lengths=segment_lengths,
        )
    normed = last.input_layernorm(hidden)
    asked = hidden[0].index_select(0, index)  # (M, D)
    if len(index):
        asked = asked + _attention_at(last.self_attn, normed, rotary, segment_lengths, index)
    asked = asked + last.mlp(last.post_attention_layernorm(asked))
    return decoder.norm(asked)


def _attention_at(
    attention: nn.Module,
    normed: Tensor,
    rotary: tuple[Tensor, Tensor],
    segment_lengths: Sequence[int],
    index: Tensor,
) -> Tensor:
    """(M, D): what the tokens at `index` read from their own segment up to themselves."""
    cos, sin = rotary
    query = _heads(attention, "q", normed.index_select(1, index))  # (1, H, M, E)
    query = _rotate(query, cos.index_select(1, index), sin.index_select(1, index))
    key = _rotate(_heads(attention, "k", normed), cos, sin)  # (1, K, T, E)
    value = _heads(attention, "v", normed)
    key, value = (_as_many_heads(x, query.shape[1]) for x in (key, value))
    ends = torch.tensor(segment_lengths).cumsum(0)
    counts = torch.bincount(
        torch.searchsorted(ends, index, right=True), minlength=len(segment_lengths)
    )
    lengths, counts = list(segment_lengths), counts.tolist()
    outputs, start, first = [], 0, 0
    queries, keys, values = query.split(counts, 2), key.split(lengths, 2), value.split(lengths, 2)
    for q, k, v, count, length in zip(queries, keys, values, counts, lengths, strict=True):
        if count:
            at = index[first : first + count] - start  # (m,)
            allowed = torch.arange(length) <= at[:, None]  # (m, s)
            outputs.append(
                F.scaled_dot_product_attention(
                    q, k, v, attn_mask=allowed[None, None], scale=attention.scaling
                ).transpose(1, 2)
            )
        start, first = start + length, first + count
    return attention.o_proj(torch.cat(outputs, dim=1).flatten(2))[0]


def _heads(attention: nn.Module, which: str, x: Tensor) -> Tensor:
    """(1, heads, tokens, E): queries, keys or values of x (1, tokens, D)."""
    projected = getattr(attention, f"{which}_proj")(x).unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{which}_norm", None)  # Qwen3 has them for q and k
    return (projected if norm is None else norm(projected)).transpose(1, 2)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of x (1, heads, tokens, E) by tables (1, tokens, E)."""
    return x * cos[:, None] + rotate_half(x) * sin[:, None]


def _as_many_heads(x: Tensor, heads: int) -> Tensor:
    """Repeat each head of keys or values for its group of query heads."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)
