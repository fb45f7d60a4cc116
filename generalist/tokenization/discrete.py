"""Integers as themselves: buttons, board cells, counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from generalist.tokenization.codec import Codec, Toolbox, flat


class IntegerRanges:
    """The legal integers of each of K elements, checked and counted from the smallest one.

    Args:
        low: Smallest legal value of each element, as Python integers.
        count: Number of legal values of each element, at most 2**62.
    """

    def __init__(self, low: Sequence[int], count: Sequence[int]) -> None:
        dtype = np.uint64 if max(low, default=0) >= 2**63 else np.int64
        self.low = np.array(low, dtype=dtype)
        self.high = np.array([a + n - 1 for a, n in zip(low, count, strict=True)], dtype=dtype)

    def offsets(self, values: np.ndarray) -> np.ndarray:
        """Legal values less the smallest one.

        Args:
            values: (N, K) integers, truth values, or real numbers without a fraction.

        Returns:
            (N, K) int64 in [0, count).

        Raises:
            ValueError: A value is not legal; the message names the first such step and element.
        """
        with np.errstate(invalid="ignore"):  # nan and inf become integers, which they do not equal
            integers = values.astype(np.int64) if values.dtype.kind in "fb" else values
        legal = (integers == values) & (integers >= self.low) & (integers <= self.high)
        if not legal.all():
            step, element = np.argwhere(~legal)[0]
            raise ValueError(
                f"is {values[step, element]} at step {step}, element {element}; legal are the "
                f"integers {self.low[element]} to {self.high[element]}"
            )
        return (integers.astype(self.low.dtype) - self.low).astype(np.int64)

    def values(self, offsets: np.ndarray) -> np.ndarray:
        """Inverse of `offsets`."""
        return np.asarray(offsets).astype(self.low.dtype) + self.low


@dataclass(frozen=True)
class DiscreteCodec(Codec):
    """Each element one token: the integer less its smallest legal value."""

    kind: ClassVar[str] = "discrete"
    range_name: ClassVar[str] = "discrete"

    low: tuple[int, ...]  # smallest legal value of each element, row-major
    count: tuple[int, ...]  # number of legal values of each element

    @property
    def tokens(self) -> int:
        """K, one for each element."""
        return len(self.low)

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """K intervals: the legal values of each element."""
        return tuple((0, count) for count in self.count)

    @cached_property
    def _ranges(self) -> IntegerRanges:
        return IntegerRanges(self.low, self.count)

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, *shape) integers to (N, K), each less its smallest legal value."""
        return self._ranges.offsets(flat(values, self.shape))

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, K) codes to (N, *shape) integers."""
        values = self._ranges.values(codes)
        return values.reshape(len(values), *self.shape).astype(self.dtype)
