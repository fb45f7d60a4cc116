"""Which spaces hold frames, and where in them."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from generalist.envs.frames import FrameAxes, frame_axes, has_frames


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((84, 84), FrameAxes(0, None)),
        ((210, 160, 3), FrameAxes(0, 2)),
        ((32, 32, 4), FrameAxes(0, 2)),
        ((3, 84, 84), FrameAxes(1, 0)),
        ((4, 84, 84, 1), FrameAxes(1, 3)),
        ((2, 3, 84, 84), FrameAxes(2, 1)),
        ((84,), None),
        ((84, 84, 84), None),
        ((84, 3, 84), None),
        ((84, 84, 2, 2), None),
        ((31, 84), None),
        ((0, 84, 84), None),
        ((), None),
    ],
)
def test_height_and_width_are_the_two_large_axes(
    shape: tuple[int, ...], axes: FrameAxes | None
) -> None:
    assert frame_axes(shape) == axes


def test_frames_are_bytes_from_0_to_255_anywhere_in_a_space() -> None:
    frames = spaces.Box(0, 255, (84, 84), np.uint8)
    assert has_frames(frames)
    assert has_frames(spaces.Dict(a=spaces.Discrete(2), b=spaces.Tuple((frames,))))
    for other in (
        spaces.Box(0, 254, (84, 84), np.uint8),
        spaces.Box(0, 1, (84, 84), np.float32),
        spaces.Box(0, 255, (84, 84), np.int32),
        spaces.Discrete(255),
        spaces.Text(84),
    ):
        assert not has_frames(other) and not has_frames(spaces.Dict(x=other))
