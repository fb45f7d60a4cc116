"""Real numbers as bins that were fitted on data: each about as often used as any other.

Uniform and mu-law bins spend most ids on what never happens where bounds are far wider than the
values, or values lie far from zero. `fit_quantiles.py` fits these bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from generalist.tokenization.codec import Codec, Toolbox, flat
from generalist.tokenization.continuous import finite


@dataclass(frozen=True)
class QuantileCodec(Codec):
    """Each element one token: the bins of equal width between neighbouring knots.

    An element's knots are Q increasing values; values beyond them are clipped. Decoding gives the
    value at the centre of the bin.
    """

    kind: ClassVar[str] = "quantile"
    range_name: ClassVar[str] = "continuous"
    ordinal: ClassVar[bool] = True

    knots: tuple[tuple[float, ...], ...]  # one tuple an element, row-major
    bins: int

    @property
    def tokens(self) -> int:
        """K, one for each element."""
        return len(self.knots)

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """K intervals, all alike: the bins."""
        return ((0, self.bins),) * self.tokens

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, *shape) values to (N, K) bins; what lies beyond the knots is clipped."""
        x = finite(flat(values, self.shape))
        columns = [
            np.interp(column, knots, _levels(knots))
            for column, knots in zip(x.T, self.knots, strict=True)
        ]
        codes = np.floor(np.stack(columns, axis=1) * self.bins).astype(np.int64)
        return np.clip(codes, 0, self.bins - 1)

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, K) bins to (N, *shape): the values at their centres."""
        levels = (np.asarray(codes, dtype=np.float64) + 0.5) / self.bins
        columns = [
            np.interp(column, _levels(knots), knots)
            for column, knots in zip(levels.T, self.knots, strict=True)
        ]
        return np.stack(columns, axis=1).reshape(len(levels), *self.shape).astype(self.dtype)

    def clipped(self, values: np.ndarray) -> np.ndarray:
        """(N, *shape) values to (N, K) bool, True where a value lies beyond the bins."""
        x = flat(values, self.shape)
        first, last = np.array([(knots[0], knots[-1]) for knots in self.knots]).reshape(-1, 2).T
        return (x < first) | (x > last)


def _levels(knots: Sequence[float]) -> np.ndarray:
    return np.linspace(0.0, 1.0, len(knots))
