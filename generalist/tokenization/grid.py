"""Integer grids with a few channels: one token a cell, not one a channel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from generalist.tokenization.codec import Codec, Toolbox
from generalist.tokenization.discrete import IntegerRanges


@dataclass(frozen=True)
class GridCodec(Codec):
    """The channels of a cell packed into one mixed-radix code, the last channel fastest.

    A BabyAI view of 7x7 cells with (object, colour, state) of 11 x 6 x 3 values is 49 tokens.
    """

    kind: ClassVar[str] = "grid"
    range_name: ClassVar[str] = "discrete"

    low: tuple[int, ...]  # smallest legal value of each channel
    count: tuple[int, ...]  # number of legal values of each channel

    @property
    def tokens(self) -> int:
        """K, one for each cell."""
        return math.prod(self.shape[:-1])

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """K intervals, all alike: the packed values of a cell."""
        return ((0, math.prod(self.count)),) * self.tokens

    @cached_property
    def _ranges(self) -> IntegerRanges:
        return IntegerRanges(self.low, self.count)

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, *shape) grids to (N, cells), each cell's channels packed into one code."""
        values = np.asarray(values)
        if values.shape[1:] != self.shape:
            raise ValueError(f"has shape {values.shape[1:]} a step, expected {self.shape}")
        cells = values.reshape(-1, self.shape[-1])
        digits = self._ranges.offsets(cells)
        codes = np.ravel_multi_index(tuple(digits.T), self.count)
        return codes.reshape(len(values), self.tokens)

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, cells) codes to (N, *shape) grids."""
        codes = np.asarray(codes, dtype=np.int64)
        digits = self._ranges.values(np.stack(np.unravel_index(codes, self.count), axis=-1))
        return digits.reshape(len(codes), *self.shape).astype(self.dtype)
