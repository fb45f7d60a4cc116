"""Integers of more values than the vocabulary has: several digits each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from generalist.tokenization.codec import Codec, Toolbox, flat
from generalist.tokenization.discrete import IntegerRanges


@dataclass(frozen=True)
class DigitsCodec(Codec):
    """Each element as the digits of the integer less its smallest legal value, highest first.

    All digits but the first run from 0 to base - 1; the first runs as far as the largest value
    needs. The few combinations beyond the largest value decode to the largest value. So any legal
    digits, each chosen on its own, are a legal value.
    """

    kind: ClassVar[str] = "digits"
    range_name: ClassVar[str] = "discrete"

    low: tuple[int, ...]  # smallest legal value of each element, row-major
    count: tuple[int, ...]  # number of legal values of each element, at most 2**62
    digits: tuple[int, ...]  # of each element
    base: tuple[int, ...]  # of the digits of each element

    @property
    def tokens(self) -> int:
        """K, the digits of all elements."""
        return sum(self.digits)

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """K intervals: what each digit can be."""
        return tuple(
            (0, -(-count // base ** (digits - 1)) if digit == 0 else base)
            for count, digits, base in zip(self.count, self.digits, self.base, strict=True)
            for digit in range(digits)
        )

    @cached_property
    def _ranges(self) -> IntegerRanges:
        return IntegerRanges(self.low, self.count)

    @cached_property
    def elements(self) -> np.ndarray:
        """(tokens,) int64, the element that each token is a digit of."""
        return np.repeat(np.arange(len(self.digits)), self.digits)

    @cached_property
    def _places(self) -> np.ndarray:
        """(tokens,) int64, what a digit is to be multiplied by."""
        sizes = zip(self.base, self.digits, strict=True)
        return np.array(
            [base**place for base, digits in sizes for place in reversed(range(digits))],
            dtype=np.int64,
        )

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, *shape) integers to (N, K) digits."""
        offsets = self._ranges.offsets(flat(values, self.shape))
        bases = np.array(self.base, dtype=np.int64)[self.elements]
        digits = offsets[:, self.elements] // self._places
        is_first = np.diff(self.elements, prepend=-1) > 0
        return np.where(is_first, digits, digits % bases)

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, K) digits to (N, *shape) integers, at most the largest legal value."""
        parts = np.asarray(codes, dtype=np.int64) * self._places
        firsts = np.cumsum((0, *self.digits[:-1]))
        offsets = np.add.reduceat(parts, firsts, axis=1) if self.digits else parts
        offsets = np.minimum(offsets, np.array(self.count) - 1)
        values = self._ranges.values(offsets)
        return values.reshape(len(values), *self.shape).astype(self.dtype)

    def legal_after(self, element: int, prefix: tuple[int, ...], allowed: np.ndarray) -> np.ndarray:
        """The values of the next digit of one element that lead to an allowed value.

        Args:
            element: Number of the element, row-major.
            prefix: Digits of the element that are chosen already, highest first.
            allowed: (count,) bool, True for each allowed value of the element.

        Returns:
            (n,) bool, one for each of the n legal codes of the next digit. It is True where an
            allowed value begins so, for the largest value also through digits beyond it.
        """
        base, digits = self.base[element], self.digits[element]
        below = base ** (digits - len(prefix) - 1)  # values that share the next digit
        start = 0
        for digit in prefix:
            start = start * base + digit
        start *= base * below
        size = base if prefix else -(-self.count[element] // below)
        last = self.count[element] - 1
        offsets = np.minimum(start + np.arange(size * below), last)
        return allowed[offsets].reshape(size, below).any(axis=1)


def digits_for(count: int, largest_base: int) -> tuple[int, int]:
    """How many digits hold `count` values, and of which base.

    Args:
        count: Number of values, at least 1.
        largest_base: Most values of a digit.

    Returns:
        The fewest digits that suffice, and the smallest base that does for so many.
    """
    digits = 1
    while largest_base**digits < count:
        digits += 1
    base = max(1, math.floor(count ** (1 / digits)))
    while base**digits < count:  # the root is rounded
        base += 1
    while base > 1 and (base - 1) ** digits >= count:
        base -= 1
    return digits, base
