"""Integers as themselves: buttons, board cells, counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from generalist.tokenization.codec import Codec, Toolbox, flat


@dataclass(frozen=True)
class DiscreteCodec(Codec):
    """Each element one token: the integer less its smallest legal value."""

    kind: ClassVar[str] = "discrete"
    range_name: ClassVar[str] = "discrete"

    low: tuple[int, ...]  # smallest legal value of each element, row-major
    count: tuple[int, ...]  # number of legal values of each element

    @property
    def tokens(self) -> int:
        return len(self.low)

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        return tuple((0, count) for count in self.count)

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        return checked_codes(flat(values, self.shape), np.array(self.low), np.array(self.count))

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        values = np.asarray(codes, dtype=np.int64) + np.array(self.low)
        return values.reshape(len(values), *self.shape).astype(self.dtype)


def checked_codes(values: np.ndarray, low: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(N, K) integers less `low` (K,), each in [0, count); ValueError names the first other."""
    codes = values.astype(np.int64) - low
    wrong = (codes < 0) | (codes >= count) | (codes + low != values)
    if wrong.any():
        step, element = np.argwhere(wrong)[0]
        raise ValueError(
            f"is {values[step, element]} at step {step}, element {element}; legal are the integers "
            f"{low[element]} to {low[element] + count[element] - 1}"
        )
    return codes
