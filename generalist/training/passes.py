"""The input of one forward pass of training: tokens, and a flat list of their targets.

Shapes: B = rows, L = window tokens, T = tokens of all segments, S = segments, M = targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Own = TypeVar("Own", bound="_Tensors")


class _Tensors:
    """Dataclasses whose fields are tensors, plain values, and dataclasses of this kind."""

    def map(self: Own, function: Callable[[Any], Any]) -> Own:
        """A copy with `function` applied to each tensor or array."""
        changed: dict[str, Any] = {}
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if isinstance(value, _Tensors):
                changed[each.name] = value.map(function)
            elif isinstance(value, (Tensor, np.ndarray)):
                changed[each.name] = function(value)
        return replace(self, **changed)  # type: ignore[type-var]

    def to(self: Own, device: torch.device) -> Own:
        """A copy with all tensors on a device."""
        return self.map(lambda tensor: tensor.to(device))


@dataclass(frozen=True, kw_only=True)
class Targets(_Tensors):
    """The targets of a forward pass; each field has shape (M,).

    Attributes:
        index: int64, ascending: flat place of the hidden state that predicts the target.
        ids: int64, the target ids.
        ordinal: bool, True where neighbouring ids are near in value.
        task: int64, number of the dataset folder that the target comes from.
        weight: float32, factor on the target's loss, of either sign.
        count: float32, the target's part of the divisor of the summed loss; never negative.
        order: int64, by which `loss.full_every` selects targets, however rows are split.
    """

    index: Tensor
    ids: Tensor
    ordinal: Tensor
    task: Tensor
    weight: Tensor
    count: Tensor
    order: Tensor


@dataclass(frozen=True, kw_only=True)
class PackedRows(_Tensors):
    """A forward pass over rows with padding, as any decoder of transformers takes them.

    Attributes:
        input_ids: (B, L) int64.
        position_ids: (B, L) int64, from 0 in each segment.
        segment_starts: (S + 1,) int32, flat places in B L; the last entry is B L.
        targets: the targets.
        attended: number of pairs of a token and a token it attends to.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_starts: Tensor
    targets: Targets
    attended: int


@dataclass(frozen=True, kw_only=True)
class LinedSegments(_Tensors):
    """A forward pass over segments end to end, without padding, for the lean pass on a CPU.

    Attributes:
        input_ids: (T,) int64.
        position_ids: (T,) int64, from 0 in each segment.
        segment_lengths: lengths of the S segments in tokens; equal ones are neighbours.
        targets: the targets.
        attended: number of pairs of a token and a token it attends to.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_lengths: list[int]
    targets: Targets
    attended: int


ForwardPass = PackedRows | LinedSegments
