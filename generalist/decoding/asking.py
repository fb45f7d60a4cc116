"""Values read, and returns drawn, within a timestep of the compact form.

Legend: N = slots, E = hidden size, R = bins of returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from generalist.decoding.sampling import Interval, Sampling, choose

_AS_PREDICTED = Sampling(temperature=1.0)


@dataclass(frozen=True)
class Asking:
    """How values are read and returns are drawn in the slots of a call.

    Attributes:
        place: the position of a timestep where the value is read; a return's is the next one.
        interval: ids of returns.
        tilts: per slot, (R,) float32 added to the logits of the value before a return is drawn from
            them; None where none is drawn.
        embed: (n, 1) ids of returns to the (n, E) vectors of their position.
    """

    place: int
    interval: Interval
    tilts: Sequence[torch.Tensor | None]
    embed: Callable[[torch.Tensor], torch.Tensor]

    @property
    def draws(self) -> bool:
        """Whether a return is drawn in any slot. That takes two forward passes."""
        return any(tilt is not None for tilt in self.tilts)

    def drawn(self, values: torch.Tensor, uniform: Callable[[int], float]) -> torch.Tensor:
        """(N, E) vectors of returns that are drawn from tilted values, zero where none is.

        Args:
            values: (N, R) logits.
            uniform: number of a slot within the call to its next random number in [0, 1).
        """
        rows = [row for row, tilt in enumerate(self.tilts) if tilt is not None]
        tilts = torch.stack([tilt for tilt in self.tilts if tilt is not None]).to(values.device)
        numbers = torch.tensor([uniform(row) for row in rows])
        drawn = values[rows].float() + tilts
        chosen, _ = choose(drawn, _AS_PREDICTED, ordinal=False, uniform=numbers)
        vectors = self.embed((chosen + self.interval[0])[:, None])
        found = vectors.new_zeros(len(values), vectors.shape[1])
        found[rows] = vectors
        return found
