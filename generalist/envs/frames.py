"""Frames in spaces: which boxes of numbers are pictures, and where their height and width are."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

SMALLEST_IMAGE = 32
"""Fewest pixels a side; smaller boxes are grids of integers."""


class FrameAxes(NamedTuple):
    """Where frames stand in an array: the axis of their height; the next one is their width.

    channel: The axis of the channels, before the height or after the width; None for grey frames.
    """

    height: int
    channel: int | None


def frame_axes(shape: tuple[int, ...]) -> FrameAxes | None:
    """The axes of frames in arrays of a shape, or None where these are no frames.

    Exactly two axes have 32 elements or more: height and width, one after the other. An axis behind
    the width holds channels. Without one, the axis just before the height does. All other axes
    stand in front and count frames.
    """
    large = [axis for axis, size in enumerate(shape) if size >= SMALLEST_IMAGE]
    if len(large) != 2 or large[1] != large[0] + 1 or math.prod(shape) == 0:
        return None
    height, behind = large[0], len(shape) - large[1] - 1
    if behind > 1:
        return None
    if behind == 1:
        return FrameAxes(height, len(shape) - 1)
    return FrameAxes(height, height - 1 if height else None)


def is_full_uint8(space: spaces.Space) -> bool:
    """Whether a space is a Box of bytes, each from 0 to 255, as pixels are."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return bool((space.low == 0).all() and (space.high == 255).all())


def has_frames(space: spaces.Space) -> bool:
    """Whether a space, or any part of it, is one of frames."""
    if isinstance(space, spaces.Dict):
        return any(map(has_frames, space.spaces.values()))
    if isinstance(space, spaces.Tuple):
        return any(map(has_frames, space.spaces))
    return is_full_uint8(space) and frame_axes(space.shape or ()) is not None
