"""The input of one forward pass of training: tokens, and a flat list of their targets.

Shapes: B = rows, L = window tokens, T = tokens of all segments, S = segments, M = targets,
W = ids of a distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from generalist.modeling.embedders import Embedded
from generalist.modeling.tensors import Tensors

Own = TypeVar("Own", bound="TokenPass")


@dataclass(frozen=True, kw_only=True)
class Targets(Tensors):
    """The targets of a forward pass; each field has shape (M,).

    Attributes:
        index: int64, ascending but for outcomes: flat place of the hidden state that predicts the
            target.
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
class SoftTargets(Tensors):
    """Distributions in place of some of the M targets, n of them.

    Attributes:
        number: (n,) int64, ascending, which of the targets.
        ids: (n, W) int64, in the softmax of the target; any of them where there are fewer than W.
        mass: (n, W) float32 probabilities, 0 there; rows sum to 1.
    """

    number: Tensor
    ids: Tensor
    mass: Tensor

    def among(self, numbers: Tensor, first_id: int) -> SoftTargets | None:
        """Those of some of the targets, counted within these; None where they have none.

        Args:
            numbers: (m,) int64, ascending, which targets.
            first_id: ids are counted from this one.
        """
        place = torch.searchsorted(numbers, self.number).clamp(max=len(numbers) - 1)
        mine = (numbers[place] == self.number).nonzero().squeeze(1)
        if not len(mine):
            return None
        return SoftTargets(number=place[mine], ids=self.ids[mine] - first_id, mass=self.mass[mine])


@dataclass(frozen=True, kw_only=True)
class Outcomes(Tensors):
    """Outcomes of actions that a world head predicts, with the observations that followed.

    Attributes:
        name: of the observations' embedder.
        index: (n,) int64, flat place of the hidden state at each action.
        before: (n, K) int64, ids of the observations in which they were taken.
        ids: (n, 3 + K) int64, ids of the outcomes and of the observations that followed.
    """

    name: str
    index: Tensor
    before: Tensor
    ids: Tensor


@dataclass(frozen=True, kw_only=True)
class TokenPass(Tensors):
    """A forward pass whose losses are those of target tokens.

    Attributes:
        targets: the targets; the last of them are those of the outcomes, row by row.
        outcomes: what is predicted of outcomes; empty without a world model.
        soft: distributions in place of some plain targets; None where there are none.
    """

    targets: Targets
    outcomes: tuple[Outcomes, ...] = ()
    soft: SoftTargets | None = None

    @property
    def plain_targets(self) -> Targets:
        """The targets that are predicted at once from a hidden state: all but the outcomes."""
        if not self.outcomes:
            return self.targets
        plain = len(self.targets.ids) - sum(each.ids.numel() for each in self.outcomes)
        return self.targets.map(lambda each: each[:plain])

    @property
    def weight(self) -> Tensor:
        """(M,) float32, factors on the losses."""
        return self.targets.weight

    @property
    def count(self) -> float:
        """The pass's part of the divisor of the summed loss."""
        return self.targets.count.sum().item()

    def weighted(self: Own, factor: float) -> Own:
        """The pass beside others: its losses times a factor, and no part of the divisor."""
        targets = self.targets
        changed = replace(targets, weight=targets.weight * factor, count=targets.count * 0)
        return replace(self, targets=changed)


@dataclass(frozen=True, kw_only=True)
class PackedRows(TokenPass):
    """A forward pass over rows with padding, as any decoder of transformers takes them.

    Attributes:
        input_ids: (B, L) int64.
        position_ids: (B, L) int64, from 0 in each segment.
        segment_starts: (S + 1,) int32, flat places in B L; the last entry is B L.
        attended: number of pairs of a token and a token it attends to.
        embedded: vectors added to the embeddings of the ids; none in the flat form.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_starts: Tensor
    attended: int
    embedded: tuple[Embedded, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LinedSegments(TokenPass):
    """A forward pass over segments end to end, without padding, for the lean pass on a CPU.

    Attributes:
        input_ids: (T,) int64.
        position_ids: (T,) int64, from 0 in each segment.
        segment_lengths: lengths of the S segments in tokens; equal ones are neighbours.
        attended: number of pairs of a token and a token it attends to.
        embedded: vectors added to the embeddings of the ids; none in the flat form.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_lengths: list[int]
    attended: int
    embedded: tuple[Embedded, ...] = ()


ForwardPass = PackedRows | LinedSegments
"""A forward pass over recorded windows."""


class Pass(Protocol):
    """What an objective is given and strategies pass on, whatever is learned from it.

    Attributes:
        weight: float32 factors on the losses, which broadcast against them.
        count: the pass's part of the divisor of the summed loss.
    """

    @property
    def weight(self) -> Tensor:
        """See above."""

    @property
    def count(self) -> float:
        """See above."""

    def map(self, function: Callable[[Any], Any]) -> Self:
        """See generalist.modeling.tensors.Tensors."""

    def to(self, device: torch.device) -> Self:
        """See generalist.modeling.tensors.Tensors."""
