"""Small films for pages: mp4 in memory, a keyframe often, so that a page can jump to any step."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from generalist.acting.video import Picture
from generalist.errors import needing

LONGEST_SIDE = 400  # pixels
_KEYFRAMES = 24  # every so many frames
_QUALITY = 28  # constant rate factor of x264: larger is smaller and coarser


class Frames:
    """The frames of an episode, small and of one size."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self._picture = Picture()

    def add(self, frame: Any) -> None:
        """Keep a rendered frame; GeneralistError where it is no picture."""
        self.frames.append(shrunk(self._picture(frame), LONGEST_SIDE))


def shrunk(picture: np.ndarray, longest: int) -> np.ndarray:
    """An (H, W, 3) uint8 picture whose longer side has at most `longest` pixels; sizes are even."""
    with needing("Filming"):
        import cv2

    height, width = picture.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = (2 * max(1, round(width * scale / 2)), 2 * max(1, round(height * scale / 2)))
    if size == (width, height):
        return picture
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def mp4(frames: Sequence[np.ndarray], fps: float) -> bytes:
    """Frames of (H, W, 3) uint8 with even sizes as an mp4 file (H.264)."""
    with needing("Filming"):
        import imageio

    options = ["-crf", str(_QUALITY), "-g", str(_KEYFRAMES), "-movflags", "+faststart"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        with imageio.get_writer(
            path, fps=fps, codec="libx264", macro_block_size=2, quality=None, output_params=options
        ) as writer:
            for frame in frames:
                writer.append_data(frame)
        return path.read_bytes()
