"""The loss: next-token cross entropy at target positions, with ordinal targets for bins.

Shapes: B = rows, L = window tokens, T = tokens of all segments, D = hidden size,
V = vocabulary size, M = targets in the batch, W = 2 radius + 1 neighbouring bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from generalist.modeling.segments import hidden_at

IGNORE = -100  # label of a position without a loss


@dataclass(frozen=True)
class OrdinalTargets:
    """Which ids are bins of a scalar, and how far a target spreads over neighbouring bins."""

    start: int  # first id of the continuous range
    stop: int  # first id after it
    sigma_bins: float  # standard deviation of the Gaussian; 0 means one-hot

    @property
    def radius(self) -> int:
        """Bins on either side that get any mass: four standard deviations."""
        return round(4 * self.sigma_bins)


class TokenObjective(nn.Module):
    """A causal LM together with its loss, so that a wrapper (DDP, DeepSpeed) sees one module."""

    def __init__(self, model: PreTrainedModel, ordinal: OrdinalTargets) -> None:
        super().__init__()
        self.model = model
        self.ordinal = ordinal

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Per-target losses.

        Args:
            batch: `target_index` (M,) int64, ascending: which hidden states predict a target;
                `target_ids` (M,) int64; `target_ordinal` (M,) bool; and either
                rows: `input_ids`, `position_ids` (B, L) int64, `target_index` counting in (B L);
                or segments end to end, for the lean pass on a CPU: `input_ids`, `position_ids`
                (T,) int64 and `segment_lengths`, `target_index` counting in (T,).

        Returns:
            (M,) float32 cross entropies in nats.
        """
        decoder, index = self.model.get_decoder(), batch["target_index"]
        tokens = batch["input_ids"], batch["position_ids"]
        if "segment_lengths" in batch:
            hidden = hidden_at(decoder, *tokens, batch["segment_lengths"], index)  # (M, D)
        else:
            # attention_mask=None and use_cache=False let transformers find the packed segments in
            # the position ids and keep them apart; any other call leaks between them.
            hidden = decoder(
                input_ids=tokens[0], position_ids=tokens[1], attention_mask=None, use_cache=False
            ).last_hidden_state  # (B, L, D)
            hidden = hidden.flatten(0, 1).index_select(0, index)  # (M, D)
        logits = self.model.get_output_embeddings()(hidden).float()  # (M, V)
        return token_losses(logits, batch["target_ids"], batch["target_ordinal"], self.ordinal)


def token_losses(logits: Tensor, targets: Tensor, ordinal: Tensor, spec: OrdinalTargets) -> Tensor:
    """Cross entropy of (M, V) logits, in nats, (M,) float32.

    One-hot where `ordinal` (M,) is False. Where it is True the target is a Gaussian over bins
    around `targets`, cut at the ends of the continuous range and normalised there.
    """
    log_norm = torch.logsumexp(logits, dim=-1)  # (M,)
    picked = logits.gather(1, targets[:, None]).squeeze(1)  # (M,)
    if spec.sigma_bins > 0:
        rows = ordinal.nonzero().squeeze(1)
        if rows.numel():
            expected = _expected_logit(logits, rows, targets[rows], spec)
            picked = picked.index_copy(0, rows, expected)
    return log_norm - picked


def _expected_logit(logits: Tensor, rows: Tensor, targets: Tensor, spec: OrdinalTargets) -> Tensor:
    """Mean logit under the Gaussian target of `rows`; only the W bins that have mass are read."""
    offsets = torch.arange(-spec.radius, spec.radius + 1, device=logits.device)  # (W,)
    mass = torch.exp(-0.5 * (offsets / spec.sigma_bins) ** 2)  # (W,)
    ids = targets[:, None] + offsets  # (M, W)
    inside = (ids >= spec.start) & (ids < spec.stop)
    mass = mass * inside
    mass = mass / mass.sum(dim=1, keepdim=True)
    neighbours = logits[rows[:, None], ids.clamp(spec.start, spec.stop - 1)]  # (M, W)
    return (mass * neighbours).sum(dim=1)
