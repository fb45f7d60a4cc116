"""What one forward pass of training takes: tokens, and a flat list of their targets.

Shapes: B = rows, L = window tokens, T = tokens of all segments, S = segments, M = targets.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from generalist.modeling.embedders import Embedded
from generalist.modeling.tensors import Tensors


@dataclass(frozen=True, kw_only=True)
class Targets(Tensors):
    """What is to be predicted in a forward pass, each of shape (M,).

    index: int64, ascending: the flat place of the hidden state that predicts each.
    ids: int64. ordinal: bool, True where neighbouring ids are near in value.
    task: int64, which dataset folder it is from.
    weight: float32, factor on its loss, of either sign.
    count: float32, how much it counts in what the sum of losses is divided by, never negative.
    order: int64; every n-th is chosen for something by these, the same however rows are split.
    """

    index: Tensor
    ids: Tensor
    ordinal: Tensor
    task: Tensor
    weight: Tensor
    count: Tensor
    order: Tensor


@dataclass(frozen=True, kw_only=True)
class PackedRows(Tensors):
    """A forward pass over rows, padding included, as any decoder of transformers takes them.

    input_ids, position_ids: (B, L) int64. segment_starts: (S + 1,) int32, counted in (B L).
    embedded: what is added to the embeddings of the ids; nothing in the flat form.
    attended: how many tokens all tokens see together.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_starts: Tensor
    targets: Targets
    attended: int
    embedded: tuple[Embedded, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LinedSegments(Tensors):
    """A forward pass over segments end to end, without padding, as the lean pass on a CPU takes it.

    input_ids, position_ids: (T,) int64. segment_lengths: of S segments, equal ones are neighbours.
    embedded: what is added to the embeddings of the ids; nothing in the flat form.
    attended: how many tokens all tokens see together.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_lengths: list[int]
    targets: Targets
    attended: int
    embedded: tuple[Embedded, ...] = ()


ForwardPass = PackedRows | LinedSegments
