"""The loss: next-token cross entropy at target positions, with ordinal targets for bins.

Shapes: B = rows, L = window tokens, D = hidden size, V = vocabulary size, M = targets in the batch,
W = 2 radius + 1 neighbouring bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

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

    def __init__(self, model: nn.Module, ordinal: OrdinalTargets) -> None:
        super().__init__()
        self.model = model
        self.ordinal = ordinal
        # Through __dict__, so that the decoder is not registered as a second child: its weights
        # are already in `model`. `torch.compile` replaces this attribute only.
        self.__dict__["decoder"] = model.get_decoder()

    def compile_decoder(self) -> None:
        """Compile everything but the head, whose number of rows differs from batch to batch."""
        self.__dict__["decoder"] = torch.compile(self.decoder, dynamic=False)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Per-target losses.

        Args:
            batch: `input_ids`, `position_ids` (B, L) int64; `target_index` (M,) int64 index into
                the flattened (B L) of the hidden state that predicts each target; `target_ids`
                (M,) int64; `target_ordinal` (M,) bool.

        Returns:
            (M,) float32 cross entropies in nats.
        """
        # attention_mask=None and use_cache=False let transformers find the packed segments in the
        # position ids and keep them apart; any other call leaks between them.
        hidden = self.decoder(
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            attention_mask=None,
            use_cache=False,
        ).last_hidden_state  # (B, L, D)
        hidden = hidden.flatten(0, 1).index_select(0, batch["target_index"])  # (M, D)
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
