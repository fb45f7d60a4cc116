"""The still background of a task, from which its frames are coded as a difference.

The frame tokenizer holds the backgrounds of the games that it was trained on, by name. The one of
any other task is fitted where the task's layout is made (`fit_backgrounds.py`) and stands in that
layout. So it goes with the layout into shards and checkpoints, and two layouts with different
backgrounds are different layouts.

Legend: S = pixels a side of the frames that the tokenizer codes (84).
"""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Background:
    """A still picture. Equal pixels are equal backgrounds, so they are stored uncompressed.

    Attributes:
        pixels: the bytes of (S, S, 3) RGB, row-major, in base64.

    Raises:
        ValueError: these are no pixels of a square picture.
    """

    pixels: str = field(repr=False)

    def __post_init__(self) -> None:
        try:
            count = len(base64.b64decode(self.pixels, validate=True))
        except (binascii.Error, TypeError, ValueError) as error:
            raise ValueError(f"a background's pixels are no base64: {error}") from error
        if count == 0 or count != 3 * math.isqrt(count // 3) ** 2:
            raise ValueError(f"a background has {count} bytes, which are no square RGB picture")

    @classmethod
    def of(cls, picture: np.ndarray) -> Background:
        """The background that looks like `picture`, (S, S, 3) uint8 RGB."""
        return cls(base64.b64encode(np.ascontiguousarray(picture, np.uint8).tobytes()).decode())

    @property
    def picture(self) -> np.ndarray:
        """(S, S, 3) uint8 RGB."""
        flat = np.frombuffer(base64.b64decode(self.pixels), np.uint8)
        side = math.isqrt(len(flat) // 3)
        return flat.reshape(side, side, 3)
