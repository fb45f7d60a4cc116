"""Real numbers as bins: uniform where the bounds are known, mu-law where they are not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from generalist.tokenization.codec import Codec, Toolbox, flat

MU = 100.0
M = 256.0


def mu_law(x: np.ndarray) -> np.ndarray:
    """Squash any real number: sign(x) log(|x| mu + 1) / log(M mu + 1) (Gato, appendix B)."""
    return np.sign(x) * np.log1p(np.abs(x) * MU) / math.log(M * MU + 1.0)


def inverse_mu_law(y: np.ndarray) -> np.ndarray:
    """Inverse of `mu_law`."""
    return np.sign(y) * np.expm1(np.abs(y) * math.log(M * MU + 1.0)) / MU


def finite(values: np.ndarray) -> np.ndarray:
    """(N, K) as float64; ValueError names step and element of what is not a finite number."""
    x = values.astype(np.float64)
    good = np.isfinite(x)
    if not good.all():
        step, element = np.argwhere(~good)[0]
        raise ValueError(f"is {x[step, element]} at step {step}, element {element}")
    return x


@dataclass(frozen=True)
class ContinuousCodec(Codec):
    """Each element one token: a value is brought to [-1, 1], then falls into one of `bins` bins.

    An element with finite `low` and `high` is scaled linearly between them and clipped to them;
    one with None for both goes through the mu-law, which saturates at +-256. Decoding gives the
    centre of the bin, so encode(decode(code)) == code and +1.0 is the last bin, not one past it.
    """

    kind: ClassVar[str] = "continuous"
    range_name: ClassVar[str] = "continuous"
    ordinal: ClassVar[bool] = True

    low: tuple[float | None, ...]  # one an element, row-major
    high: tuple[float | None, ...]
    bins: int

    @property
    def tokens(self) -> int:
        return len(self.low)

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        return ((0, self.bins),) * self.tokens

    def _scale(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        bounded = np.array([low is not None for low in self.low], dtype=bool)
        low = np.array([-1.0 if low is None else low for low in self.low])
        high = np.array([1.0 if high is None else high for high in self.high])
        return bounded, (low + high) / 2, (high - low) / 2

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        x = finite(flat(values, self.shape))
        bounded, centre, half = self._scale()
        unit = np.where(bounded, (x - centre) / half, mu_law(x))
        codes = np.floor((unit + 1.0) * (self.bins / 2)).astype(np.int64)
        return np.clip(codes, 0, self.bins - 1)

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        unit = (np.asarray(codes, dtype=np.float64) + 0.5) * (2 / self.bins) - 1.0
        bounded, centre, half = self._scale()
        values = np.where(bounded, centre + unit * half, inverse_mu_law(unit))
        return values.reshape(len(values), *self.shape).astype(self.dtype)
