"""The loss: next-token cross entropy at target positions, with ordinal targets for bins.

Shapes: B = rows, L = window tokens, D = hidden size, V = vocabulary size, M = targets in the pass,
W = 2 radius + 1 neighbouring bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from generalist.modeling.attention import attention_by
from generalist.modeling.embedders import embedders_of
from generalist.modeling.flash import ATTENTION_NAME
from generalist.modeling.segments import hidden_at
from generalist.training.passes import ForwardPass, LinedSegments, PackedRows, Targets


@dataclass(frozen=True)
class OrdinalTargets:
    """Which ids are bins of a scalar, and how far a target spreads over neighbouring bins.

    Attributes:
        start, stop: first id of the continuous range, and the first after it.
        sigma_bins: standard deviation of the Gaussian there; 0 means one-hot.
        returns: the same ids of the range of returns. There the deviation is as large a part of
            the range.
    """

    start: int
    stop: int
    sigma_bins: float
    returns: tuple[int, int] = (0, 0)

    def shifted(self, first_id: int) -> OrdinalTargets:
        """The same where ids are counted from `first_id`."""
        first, stop = self.returns
        return replace(
            self,
            start=self.start - first_id,
            stop=self.stop - first_id,
            returns=(first - first_id, stop - first_id),
        )

    @property
    def radius(self) -> int:
        """Bins on either side that get any mass: four standard deviations."""
        return round(4 * self.sigma_bins)


class TokenObjective(nn.Module):
    """A causal LM together with its loss, so that a wrapper (DDP, DeepSpeed) sees one module.

    Args:
        model: predicts the next token.
        ordinal: how targets of scalars spread.
        ranges: (start, stop) of the vocabulary's ranges, which cover it in order.
        full_every: see LossRecipe.full_every.

    Attributes:
        segments: whether batches are segments end to end; False at first.
        half: whether these are multiplied in bfloat16; False at first.
        flash: whether rows are attended to by flash attention, which takes a GPU and 16 bits;
            False at first.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ordinal: OrdinalTargets,
        *,
        ranges: Sequence[tuple[int, int]] = (),
        full_every: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.ordinal = ordinal
        self.ranges = list(ranges)
        self.full_every = full_every
        self.segments = False
        self.half = False
        self.flash = False

    def forward(self, batch: ForwardPass) -> Tensor:
        """Losses of all targets: (M,) float32 cross entropies in nats."""
        targets = batch.targets
        if isinstance(batch, LinedSegments):
            given = self._embeddings(batch), batch.position_ids, batch.segment_lengths
            hidden = hidden_at(self.model.get_decoder(), *given, targets.index, self.half)  # (M, D)
        else:
            hidden = self._hidden_of_rows(batch).flatten(0, 1).index_select(0, targets.index)
        if self.full_every > 1:
            return self._losses_by_range(hidden, targets)
        logits = self.model.get_output_embeddings()(hidden).float()  # (M, V)
        return token_losses(logits, targets.ids, targets.ordinal, self.ordinal)

    def _embeddings(self, batch: ForwardPass) -> Tensor:
        """What goes into the first block: (B, L, D) of rows, (T, D) of segments."""
        hidden = self.model.get_input_embeddings()(batch.input_ids)
        embedders = embedders_of(self.model)
        if embedders is None:
            return hidden
        return embedders(hidden.flatten(0, -2), batch.embedded).view(hidden.shape)

    def _hidden_of_rows(self, batch: PackedRows) -> Tensor:
        """(B, L, D) final hidden states."""
        decoder = self.model.get_decoder()
        # attention_mask=None and use_cache=False let transformers find the packed segments in the
        # position ids and keep them apart; any other call leaks between them.
        tokens = {"inputs_embeds": self._embeddings(batch), "position_ids": batch.position_ids}
        call = partial(decoder, **tokens, attention_mask=None, use_cache=False)
        if not self.flash:
            return call().last_hidden_state
        with attention_by(decoder.config, ATTENTION_NAME):
            return call(segment_starts=batch.segment_starts).last_hidden_state

    def _losses_by_range(self, hidden: Tensor, batch: Targets) -> Tensor:
        """(M,) losses; most of them with a softmax over the target's own range of ids."""
        targets, ordinal = batch.ids, batch.ordinal
        head = self.model.get_output_embeddings().weight  # (V, D)
        tables = head.split([stop - start for start, stop in self.ranges])
        stops = torch.tensor([stop for _, stop in self.ranges], device=targets.device)
        group = torch.bucketize(targets, stops, right=True)  # (M,) which range a target is in
        large = torch.tensor([2 * len(table) > len(head) for table in tables])
        every_nth = batch.order % self.full_every == 0
        # A range with most of the ids is not worth a softmax of its own.
        group[every_nth | large.to(group.device)[group]] = len(tables)
        losses, rows = [], []
        for number, (table, start) in enumerate(
            [*zip(tables, (start for start, _ in self.ranges), strict=True), (head, 0)]
        ):
            mine = (group == number).nonzero().squeeze(1)
            if len(mine):
                logits = F.linear(hidden.index_select(0, mine), table).float()
                spec = self.ordinal.shifted(start)
                losses.append(token_losses(logits, targets[mine] - start, ordinal[mine], spec))
                rows.append(mine)
        if not losses:
            return hidden.sum(dim=1)  # no targets: (0,), with a gradient of zero
        return torch.cat(losses)[torch.cat(rows).argsort()]


def token_losses(logits: Tensor, targets: Tensor, ordinal: Tensor, spec: OrdinalTargets) -> Tensor:
    """Cross entropy of (M, V) logits, in nats, (M,) float32.

    One-hot where `ordinal` (M,) is False. Where it is True the target is a Gaussian over bins
    around `targets`, cut at the ends of the continuous range and normalised there.
    """
    ids, mass = target_mass(targets, ordinal, spec)
    return _SoftCrossEntropy.apply(logits, ids, mass)


def target_mass(targets: Tensor, ordinal: Tensor, spec: OrdinalTargets) -> tuple[Tensor, Tensor]:
    """The ids a target spreads over and the probability of each: (M, W) int64, (M, W) float32.

    W is 1 where no target is ordinal. Rows sum to 1; ids without mass repeat the target.
    """
    if spec.sigma_bins <= 0 or not bool(ordinal.any()):
        return targets[:, None], torch.ones_like(targets, dtype=torch.float32)[:, None]
    offsets = torch.arange(-spec.radius, spec.radius + 1, device=targets.device)  # (W,)
    ids = targets[:, None] + offsets  # (M, W)
    first, stop = spec.returns
    is_return = ((targets >= first) & (targets < stop))[:, None]  # (M, 1)
    start, end = (
        torch.where(is_return, *pair) for pair in ((first, spec.start), (stop, spec.stop))
    )
    inside = (ids >= start) & (ids < end) & ordinal[:, None]
    inside |= offsets == 0
    narrower = (stop - first) / (spec.stop - spec.start)
    sigma = torch.where(is_return, spec.sigma_bins * narrower, spec.sigma_bins)
    mass = torch.exp(-0.5 * (offsets / sigma) ** 2) * inside
    return torch.where(inside, ids, targets[:, None]), mass / mass.sum(dim=1, keepdim=True)


class _SoftCrossEntropy(torch.autograd.Function):
    """logsumexp(logits) - sum_w mass_w logits[ids_w], for rows of mass that sum to 1.

    Autograd alone would walk over the (M, V) logits four times more, which is a tenth of a step of
    a small model.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, mass: Tensor) -> Tensor:
        """(M, V), (M, W), (M, W) -> (M,)."""
        probabilities = torch.softmax(logits, dim=1)
        # The largest probability is at least 1 / V, so its logarithm is exact where others are 0.
        peak, where = logits.max(dim=1, keepdim=True)
        log_norm = (peak - probabilities.gather(1, where).log()).squeeze(1)  # (M,)
        ctx.save_for_backward(probabilities, ids, mass)
        return log_norm - (mass * logits.gather(1, ids)).sum(dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The gradient with respect to the logits: probabilities minus mass."""
        probabilities, ids, mass = ctx.saved_tensors
        gradient = probabilities * grad[:, None]
        return gradient.scatter_add_(1, ids, -mass * grad[:, None]), None, None
