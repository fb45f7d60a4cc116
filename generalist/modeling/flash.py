"""Attention of packed rows on a GPU: flash attention within each segment.

transformers keeps the segments of a row apart by a mask over whole rows, (B, 1, L, L), which the
fast kernels do not take. Here all rows lie end to end and attention is told where segments begin:
no mask is built, and nothing is computed between segments.

Shapes: B = rows, L = window tokens, S = segments, H / K = attention / key heads, D = head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface

ATTENTION_NAME = "generalist_segments"


def segment_attention(
    module: torch.nn.Module | None,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    segment_starts: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of every token to its own segment, as transformers calls it.

    query: (B, H, L, D); key, value: (B, K, L, D). segment_starts: (S + 1,) int32 among the B L
    tokens, and where they end. Returns (B, L, H, D) in the dtype of `value`, which is bfloat16 or
    float16: autocast leaves queries and keys in float32, and would cast them for other attention.
    """
    assert segment_starts is not None, "the objective passes segment_starts to the model"
    rows, _, length, _ = query.shape
    query, key, value = (
        x.to(value.dtype).transpose(1, 2).flatten(0, 1) for x in (query, key, value)
    )
    # How long the longest segment may be is said, not found: the kernels are launched for it.
    out = _flash(query, key, value, segment_starts, length, scaling)
    return out.unflatten(0, (rows, length)), None


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scaling: float | None,
) -> torch.Tensor:
    """(B L, H, D). The operator that `scaled_dot_product_attention` calls for nested tensors; what
    PyTorch has for it under a public name differs from version to version."""
    return torch.ops.aten._flash_attention_forward(
        *(query, key, value, starts, starts, longest, longest, 0.0, True, False), scale=scaling
    )[0]


AttentionInterface.register(ATTENTION_NAME, segment_attention)
