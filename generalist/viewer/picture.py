"""One moving picture of several recorded tasks, for a README: an animated WebP."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from generalist.errors import GeneralistError, needing
from generalist.shards.files import replacing
from generalist.viewer.recording import Recording

SECONDS = 8.0
FRAMES_A_SECOND = 12
TILE = (272, 204)  # width and height in pixels
GAP = 6
MOST_BYTES = 2_000_000
_QUALITIES = (62, 50, 40, 30, 20)  # of WebP, tried until the picture is small enough
_BACK = 24  # brightness between the tiles
_LINE = 22  # pixels of a tile's caption


def write_picture(recordings: Sequence[Recording], path: Path) -> int:
    """Write a moving picture in which all recordings play side by side, each at its own speed.

    Args:
        recordings: those without a film are left out.
        path: of the file, which ends in `.webp`.

    Returns:
        Size of the file in bytes, at most `MOST_BYTES`.

    Raises:
        GeneralistError: there is no film, or the picture cannot be made small enough.
    """
    if path.suffix != ".webp":
        raise GeneralistError(f"A picture is a .webp file; got {path}.")
    shown = [each for each in recordings if each.film is not None]
    if not shown:
        raise GeneralistError("No task has a film, so there is no picture.")
    tiles = [_tile_frames(each) for each in shown]
    frames = [_mosaic(tile[number] for tile in tiles) for number in range(len(tiles[0]))]
    for quality in _QUALITIES:
        content = _webp(frames, quality)
        if len(content) <= MOST_BYTES:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(content)
            return len(content)
    raise GeneralistError(
        f"The picture has {len(content) / 1e6:.1f} MB at the lowest quality; show fewer tasks."
    )


def _tile_frames(recording: Recording) -> list[np.ndarray]:
    """The frames of a tile at the times of the picture; a short episode begins again."""
    film, captioned = _decoded(recording.film or b""), []
    drawn: dict[int, np.ndarray] = {}
    for number in range(round(SECONDS * FRAMES_A_SECOND)):
        at = int(number / FRAMES_A_SECOND * recording.fps) % len(film)
        if at not in drawn:
            drawn[at] = _tile(film[at], recording.task)
        captioned.append(drawn[at])
    return captioned


def _decoded(film: bytes) -> list[np.ndarray]:
    with needing("Filming"):
        import imageio

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        path.write_bytes(film)
        return [np.asarray(frame) for frame in imageio.get_reader(path)]


def _tile(frame: np.ndarray, task: str) -> np.ndarray:
    """A frame in the middle of a tile, above the name of its task."""
    with needing("Filming"):
        import cv2

    width, height = TILE
    scale = min(width / frame.shape[1], (height - _LINE) / frame.shape[0])
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    tile = np.full((height, width, 3), 10, np.uint8)
    top, left = (height - _LINE - size[1]) // 2, (width - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = small
    font, color = cv2.FONT_HERSHEY_SIMPLEX, (225, 230, 236)
    cv2.putText(tile, task, (8, height - 7), font, 0.42, color, 1, cv2.LINE_AA)
    return tile


def _mosaic(tiles: Iterable[np.ndarray]) -> np.ndarray:
    """Tiles in rows of about as many as there are rows."""
    pieces = list(tiles)
    columns = math.ceil(math.sqrt(len(pieces)))
    rows = math.ceil(len(pieces) / columns)
    width, height = TILE
    shape = (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3)
    whole = np.full(shape, _BACK, np.uint8)
    for number, piece in enumerate(pieces):
        top = GAP + number // columns * (height + GAP)
        left = GAP + number % columns * (width + GAP)
        whole[top : top + height, left : left + width] = piece
    return whole


def _webp(frames: Sequence[np.ndarray], quality: int) -> bytes:
    """An endless animated WebP."""
    with needing("A moving picture"):
        import imageio.v3 as imageio

    file = io.BytesIO()
    imageio.imwrite(
        file, np.stack(frames), extension=".webp", plugin="pillow",
        duration=1000 / FRAMES_A_SECOND, loop=0, quality=quality, method=4, minimize_size=False,
    )  # fmt: skip
    return file.getvalue()
