"""Choosing a token from the logits of the legal ids.

Legend: n = rows, V = legal ids of one position (a slice of the vocabulary).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from generalist.errors import GeneralistError, UsageError

Interval = tuple[int, int]  # half-open interval of token ids
Flags = np.ndarray | None  # (V,) bool, or 0 and 1; None: all of them
# Flags, or what makes them from the ids that were chosen before in the timestep.
Mask = Flags | Callable[[Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Sampling:
    """How to choose among the legal ids.

    Attributes:
        temperature: 0 takes the most probable id; above 0 the logits are divided by it and sampled.
        top_p: sample only among the most probable ids that together reach this probability.
        ordinal: what temperature 0 takes at ordinal positions (bins of a continuous value): the
            "mode", the bin nearest to the "mean", or the "median", which like the mode keeps to
            the likelier of two sides but like the mean does not jump between neighbouring bins.
        ordinal_factor: on the temperature, at ordinal positions. The model's spread over the bins
            of a continuous value is mostly doubt about one number, and acting it out is noise;
            chance among buttons leads out of loops.

    Raises:
        UsageError: a number is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    ordinal: Literal["mode", "mean", "median"] = "mode"
    ordinal_factor: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"The temperature must be 0 or more, got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, got {self.top_p}.")
        if not 0 < self.ordinal_factor < float("inf"):
            raise UsageError(f"ordinal_factor must be above 0, got {self.ordinal_factor}.")


GREEDY = Sampling()


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """How one token is chosen.

    Attributes:
        interval: the V ids that it may be, [start, stop).
        ordinal: whether neighbouring ids stand for neighbouring values.
        mask: which of the V ids are legal now; None for all.
        sampling: how to choose among them.
        ends: ids after which the slot chooses nothing more in the timestep. What is left of it is
            filled with the first of them. None: there are none.
    """

    interval: Interval
    ordinal: bool = False
    mask: Mask = None
    sampling: Sampling = GREEDY
    ends: Interval | None = None

    @property
    def key(self) -> tuple[Interval, bool, Sampling]:
        """What choices that are made together have in common: all but the mask."""
        return self.interval, self.ordinal, self.sampling

    @property
    def flags(self) -> Flags:
        """The mask, once it depends on no other id."""
        assert not callable(self.mask), "Choice.after resolves the mask first"
        return self.mask

    def after(self, ids: Sequence[int]) -> Choice:
        """The same choice, its mask as flags.

        Args:
            ids: those chosen before it in the timestep.
        """
        return replace(self, mask=self.mask(ids)) if callable(self.mask) else self


DEFAULT_TEMPERATURE = 1.0
"""Act as often as the model believes an action right. An imitator of experts that switch back and
forth is right in its probabilities long before its likeliest action is (measured: benchmarks)."""


def choose(
    logits: torch.Tensor,
    sampling: Sampling,
    *,
    ordinal: bool = False,
    uniform: torch.Tensor | None = None,
    log_probs: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Choose one offset within the legal slice from each row of logits.

    An id whose logit is -inf is never chosen, but as the mean of others.

    Args:
        logits: (n, V).
        sampling: how to choose.
        ordinal: whether neighbouring ids stand for neighbouring values.
        uniform: (n,) float numbers in [0, 1), which make all randomness there is: a row's choice
            does not depend on the other rows. Not needed at temperature 0.
        log_probs: also say how probable each choice was.

    Returns:
        (n,) int64 offsets, and if asked for the (n,) float32 natural logarithms of their
        probabilities after mask, temperature and top-p; 0 at temperature 0, where nothing is left
        to chance.
    """
    if sampling.temperature == 0:
        chosen = _likeliest(logits, sampling, ordinal)
        return chosen, torch.zeros_like(chosen, dtype=torch.float32) if log_probs else None
    assert uniform is not None, "sampling needs one uniform number a row"
    temperature = sampling.temperature * (sampling.ordinal_factor if ordinal else 1.0)
    probabilities = (logits.float() / temperature).softmax(-1)
    order = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape)
    if sampling.top_p < 1:
        probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    cumulative = probabilities.double().cumsum(-1)
    total = cumulative[:, -1:]
    threshold = uniform.to(cumulative)[:, None] * total
    # The first id whose cumulative probability lies above the threshold has some probability, and
    # so has the first that completes the total, where rounding put the threshold there.
    index = ((cumulative <= threshold) & (cumulative < total)).sum(-1, keepdim=True)
    chosen = order.gather(1, index)[:, 0]
    if not log_probs:
        return chosen, None
    return chosen, (probabilities.gather(1, index) / total).log().float()[:, 0]


def _likeliest(logits: torch.Tensor, sampling: Sampling, ordinal: bool) -> torch.Tensor:
    """What temperature 0 takes of (n, V) logits: (n,) int64 offsets."""
    if ordinal and sampling.ordinal == "mean":
        bins = torch.arange(logits.shape[1], device=logits.device, dtype=torch.float32)
        return (logits.float().softmax(-1) @ bins).round().long()
    if ordinal and sampling.ordinal == "median":
        below = logits.float().softmax(-1).cumsum(-1) < 0.5
        return below.sum(-1).clamp(max=logits.shape[1] - 1)
    return logits.argmax(-1)


def masked(logits: torch.Tensor, masks: Sequence[Flags]) -> torch.Tensor:
    """Logits, those that a row's mask excludes set to -inf.

    Args:
        logits: (n, V).
        masks: of each row, (V,) flags; None excludes nothing.

    Returns:
        (n, V).

    Raises:
        GeneralistError: a mask has another length than V, or excludes all.
    """
    size = logits.shape[1]
    allowed = np.ones(logits.shape, dtype=bool)
    for row, mask in zip(allowed, masks, strict=True):
        if mask is None:
            continue
        if np.shape(mask) != (size,):
            raise GeneralistError(
                f"A mask of legal actions has shape {np.shape(mask)}; expected ({size},), one flag "
                "for each action."
            )
        row[:] = mask
        if not row.any():
            raise GeneralistError("A mask of legal actions excludes all; none can be taken.")
    return logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), float("-inf"))
