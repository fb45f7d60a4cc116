"""Real numbers as bins: of equal width between near bounds, else on a logarithmic scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from generalist.tokenization.codec import Codec, Toolbox, flat

MU = 100.0
M = 256.0
FAR = 1e5
"""Bins between bounds up to this size are of equal width."""
SAME_SIZE = 10.0
"""So are bins between larger bounds of one sign, where one is no more than this times the other."""
REACH = 1e6
"""Size of the bound that stands in for a missing one, at least."""
RELATIVE_REACH = 1e3
"""Size of that bound, at least, as a multiple of the bound on the other side."""
UNREAL = 1e9
"""A bound of this size or more says nothing about the values that occur."""
LARGEST = 1e300
"""The logarithmic scale overflows beyond."""

Bounds = tuple[float, float] | tuple[None, None]


def mu_law(x: np.ndarray) -> np.ndarray:
    """Squash real numbers: sign(x) log(|x| mu + 1) / log(M mu + 1).

    Source: Reed et al. 2022 (Gato, arXiv:2205.06175), appendix B; there mu is 100 and M 256.
    """
    return _logarithm(x) / math.log(M * MU + 1.0)


def inverse_mu_law(y: np.ndarray) -> np.ndarray:
    """Inverse of `mu_law`."""
    return _inverse_logarithm(y * math.log(M * MU + 1.0))


def _logarithm(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.log1p(np.abs(x) * MU)


def _inverse_logarithm(y: np.ndarray) -> np.ndarray:
    return np.sign(y) * np.expm1(np.abs(y)) / MU


def finite(values: np.ndarray) -> np.ndarray:
    """(N, K) as float64; ValueError names step and element of what is not a finite number."""
    x = values.astype(np.float64)
    good = np.isfinite(x)
    if not good.all():
        step, element = np.argwhere(~good)[0]
        raise ValueError(f"is {x[step, element]} at step {step}, element {element}")
    return x


def coded_bounds(low: float, high: float) -> Bounds:
    """The bounds between which a codec spreads the bins of one element.

    Args:
        low: Lower bound of the element in its space, which may be infinite.
        high: Upper bound, not below `low`.

    Returns:
        Two bounds within those of the space. The space's own come back where they are real ones.
        A bound that is missing, or too large to say anything, becomes 1e6 or 1,000 times the size
        of the other bound. Where both are missing, (None, None) stands for the mu-law.

    Raises:
        ValueError: The bounds are too large to compute with.
    """
    if low <= -UNREAL and high >= UNREAL:
        return None, None
    if high >= max(UNREAL, _reach(low)):
        high = _reach(low)
    elif low <= -max(UNREAL, _reach(high)):
        low = -_reach(high)
    if not _is_linear(low, high) and max(abs(low), abs(high)) > LARGEST:
        raise ValueError(f"its bounds {low:g} and {high:g} are too large to compute with")
    return low, high


def _reach(other_bound: float) -> float:
    return max(REACH, RELATIVE_REACH * abs(other_bound))


def _is_linear(low: float, high: float) -> bool:
    """Whether bins between two bounds are of equal width."""
    small, large = sorted((abs(low), abs(high)))
    return large <= FAR or ((low > 0 or high < 0) and large / SAME_SIZE <= small)


class _Scale(NamedTuple):
    """Where the bins of each of K elements lie; (K,) arrays."""

    low: np.ndarray  # values below are clipped to it
    high: np.ndarray
    logarithmic: np.ndarray  # bool
    centre: np.ndarray  # of the scale, after the logarithm where there is one
    half: np.ndarray  # half of the scale's length
    bins: np.ndarray  # 1 where both bounds are the same number


@dataclass(frozen=True)
class ContinuousCodec(Codec):
    """Each element one token: a value is brought to [-1, 1], then falls into one of `bins` bins.

    The stored bounds of an element say how:

    - both at most 1e5 in size, or larger, of one sign and within a factor of ten: bins of equal
      width between them;
    - both, otherwise: bins of equal width of sign(x) log(100 |x| + 1), so that values of every
      size are told apart by their share (1.8% between 0 and 1e6);
    - both equal: one bin;
    - None: the mu-law, which is the same logarithm between -256 and 256.

    Values beyond are clipped. Decoding gives the centre of the bin, which lies between the bounds.
    So encode(decode(code)) == code, and +1.0 is the last bin, not one past it.
    """

    kind: ClassVar[str] = "continuous"
    range_name: ClassVar[str] = "continuous"
    ordinal: ClassVar[bool] = True
    dtype_kinds: ClassVar[str] = "f"

    low: tuple[float | None, ...]  # one an element, row-major
    high: tuple[float | None, ...]
    bins: int

    @property
    def tokens(self) -> int:
        """K, one for each element."""
        return len(self.low)

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """K intervals: the bins of each element."""
        return tuple((0, bins) for bins in self._scale.bins.tolist())

    @cached_property
    def _scale(self) -> _Scale:
        bounds = list(zip(self.low, self.high, strict=True))
        largest = float(np.finfo(self.dtype).max)
        low = np.array([-M if low is None else max(low, -largest) for low, _ in bounds])
        high = np.array([M if high is None else min(high, largest) for _, high in bounds])
        logarithmic = np.array(
            [low is None or high is None or not _is_linear(low, high) for low, high in bounds],
            dtype=bool,
        )
        first, last = low.copy(), high.copy()
        first[logarithmic], last[logarithmic] = map(
            _logarithm, (low[logarithmic], high[logarithmic])
        )
        half = last / 2 - first / 2  # halved first: no overflow
        bins = np.where(half == 0, 1, self.bins)
        half = np.where(half == 0, 1.0, half)
        return _Scale(low, high, logarithmic, first / 2 + last / 2, half, bins)

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, *shape) values to (N, K) bins; what lies beyond the bounds is clipped."""
        scale = self._scale
        x = np.clip(finite(flat(values, self.shape)), scale.low, scale.high)
        x[:, scale.logarithmic] = _logarithm(x[:, scale.logarithmic])
        codes = np.floor(((x - scale.centre) / scale.half + 1.0) * (scale.bins / 2))
        return np.clip(codes.astype(np.int64), 0, scale.bins - 1)

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, K) bins to (N, *shape): the values at their centres, within the bounds."""
        scale = self._scale
        unit = (np.asarray(codes, dtype=np.float64) + 0.5) * (2 / scale.bins) - 1.0
        x = scale.centre + unit * scale.half
        x[:, scale.logarithmic] = _inverse_logarithm(x[:, scale.logarithmic])
        x = np.clip(x, scale.low, scale.high)
        return x.reshape(len(x), *self.shape).astype(self.dtype)

    def clipped(self, values: np.ndarray) -> np.ndarray:
        """(N, *shape) values to (N, K) bool, True where a value lies beyond the bins."""
        x = flat(values, self.shape)
        return (x < self._scale.low) | (x > self._scale.high)
