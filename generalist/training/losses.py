"""Cross entropy of tokens, with ordinal targets for bins and distributions for soft labels.

Shapes: V = ids of the softmax, M = targets, W = 2 radius + 1 neighbouring bins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from generalist.training.passes import SoftTargets


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


def token_losses(
    logits: Tensor,
    targets: Tensor,
    ordinal: Tensor,
    spec: OrdinalTargets,
    soft: SoftTargets | None = None,
) -> Tensor:
    """Cross entropy of (M, V) logits, in nats, (M,) float32.

    One-hot where `ordinal` (M,) is False. Where it is True the target is a Gaussian over bins
    around `targets`, cut at the ends of the continuous range and normalised there. The targets that
    `soft` counts are its distributions; their loss is at least the distribution's entropy.
    """
    ids, mass = target_mass(targets, ordinal, spec)
    if soft is not None:
        ids, mass = _with_soft(ids, mass, soft)
    return _SoftCrossEntropy.apply(logits, ids, mass)


def _with_soft(ids: Tensor, mass: Tensor, soft: SoftTargets) -> tuple[Tensor, Tensor]:
    """(M, W) ids and their probabilities with some rows replaced; W becomes the larger one."""
    width = max(ids.shape[1], soft.ids.shape[1])
    (ids, mass), (own_ids, own_mass) = (
        _widened(*each, width) for each in ((ids, mass), (soft.ids, soft.mass))
    )
    return ids.index_copy(0, soft.number, own_ids), mass.index_copy(0, soft.number, own_mass)


def _widened(ids: Tensor, mass: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """As many columns as `width`; the first id of a row fills them, without mass."""
    more = width - ids.shape[1]
    return torch.cat([ids, ids[:, :1].expand(-1, more)], dim=1), F.pad(mass, (0, more))


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
