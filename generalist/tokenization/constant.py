"""A token that is always the same, such as the separator between observation and action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from generalist.tokenization.codec import Codec, Toolbox


@dataclass(frozen=True)
class ConstantCodec(Codec):
    """One code, 0, whatever the value."""

    kind: ClassVar[str] = "constant"
    range_name: ClassVar[str] = "special"

    shape: tuple[int, ...] = ()
    dtype: str = "int64"

    @property
    def tokens(self) -> int:
        """1."""
        return 1

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """The code 0 alone."""
        return ((0, 1),)

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, ...) values to (N, 1) zeros."""
        return np.zeros((len(values), 1), np.int64)

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, 1) codes to (N,) zeros."""
        return np.zeros(len(codes), np.int64)
