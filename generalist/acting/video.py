"""Videos of episodes: mp4 files with step, return and action in a caption below the picture."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from generalist.errors import GeneralistError, in_words, needing
from generalist.session import Trace

MAX_FRAMES = 1_500  # later frames are left out, except the last
_LONG_STEPS = 500  # videos of longer tasks have every second frame, at the same speed
_LEAST_HEIGHT = 240  # pixels; smaller frames are enlarged so that the caption is readable
_BAR = 28  # pixels below the picture


class Films:
    """Records the episodes of some seeds, one file each: `TASK-SEED.mp4`.

    An episode goes on where its video fails.

    Args:
        folder: folder of the files.
        seeds: seeds of the episodes to record.
        max_steps: step limit of the task.

    Attributes:
        paths: the files that are complete.
        problem: why the first video that failed did; None where none has.

    Raises:
        MissingPackageError: a package that films is missing.
    """

    def __init__(self, folder: Path, seeds: Collection[int], max_steps: int) -> None:
        check_packages()
        self._folder = folder
        self._seeds = frozenset(seeds)
        self._every = 1 if max_steps <= _LONG_STEPS else 2
        self._running: dict[int, _Film] = {}
        self.paths: list[Path] = []
        self.problem: str | None = None

    def __call__(self, trace: Trace) -> None:
        """Record the present state of an episode, if its seed is one of `seeds`."""
        if trace.seed not in self._seeds:
            return
        try:
            if trace.steps == 0:
                self._running[trace.seed] = self._begin(trace)
            if (film := self._running.get(trace.seed)) is not None:
                film.add(trace)
        except Exception as error:  # each renderer and encoder has errors of its own
            said = str(error) if isinstance(error, GeneralistError) else f"{in_words(error)}."
            self.problem = self.problem or f"{trace.task}, seed {trace.seed}: {said}"
            self._end(trace.seed)
        if trace.done:
            self._end(trace.seed)

    def _begin(self, trace: Trace) -> _Film:
        name = f"{trace.task.replace('/', '-').replace(':', '-')}-{trace.seed}.mp4"
        fps = trace.env.metadata.get("render_fps") or 30
        return _Film(self._folder / name, self._every, fps)

    def _end(self, seed: int) -> None:
        film = self._running.pop(seed, None)
        if film is not None and film.close():
            self.paths.append(film.path)

    def close(self) -> None:
        """Finish the videos of running episodes; players can open them afterwards."""
        for seed in list(self._running):
            self._end(seed)


def check_packages() -> None:
    """Raise MissingPackageError where a package that films is missing.

    It costs no episode then: later it would be a video that failed.
    """
    with needing("Filming"):
        import imageio  # noqa: F401 - its extra brings OpenCV too


class _Film:
    """One video; its size is that of its first frame."""

    def __init__(self, path: Path, every: int, fps: float) -> None:
        with needing("Filming"):
            import imageio

        self.path = path
        self._every = every
        self._frames = 0
        self._picture = Picture()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = imageio.get_writer(
            path, fps=max(5, fps / every), codec="libx264", macro_block_size=2
        )

    def add(self, trace: Trace) -> None:
        """Add a frame of the present state, unless it is one to leave out."""
        if trace.steps % self._every and not trace.done:
            return
        if self._frames >= MAX_FRAMES and not trace.done:
            return
        self._writer.append_data(_captioned(self._picture(trace.env.render()), trace))
        self._frames += 1

    def close(self) -> bool:
        """Finish the file; return False, and leave no file, where it has no frame."""
        self._writer.close()
        if not self._frames:
            self.path.unlink(missing_ok=True)
        return self._frames > 0


class Picture:
    """Turns the rendered frames of an episode into (H, W, 3) uint8 of one size.

    It takes grey, colour and transparent frames, with channels last or first, of any dtype:
    integers in [0, 255], or real numbers in [0, 1] or [0, 255]. It fits later frames into the size
    of the first one.
    """

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None  # height, width
        self._is_unit = True  # so far no real number was above 1

    def __call__(self, frame: Any) -> np.ndarray:
        """The frame as (H, W, 3) uint8.

        Raises:
            GeneralistError: `frame` is not a picture.
        """
        picture = _three_channels(self._bytes(_array(frame)))
        if self._size is None:
            scale = max(1, -(-_LEAST_HEIGHT // picture.shape[0]))
            height, width = (scale * size for size in picture.shape[:2])
            self._size = height + height % 2, width + width % 2  # the codec wants even sizes
        return _fitted(picture, *self._size)

    def _bytes(self, frame: np.ndarray) -> np.ndarray:
        """Brightness as uint8."""
        kind = frame.dtype.kind
        if frame.dtype == np.uint8:
            return frame
        if kind == "b":
            return frame.astype(np.uint8) * 255
        if kind == "f":
            frame = np.nan_to_num(frame.astype(np.float64), posinf=255.0, neginf=0.0)
            self._is_unit = self._is_unit and bool(frame.max(initial=0.0) <= 1.0)
            frame = frame * 255.0 if self._is_unit else frame
        elif frame.dtype == np.uint16 and frame.max(initial=0) > 255:
            frame = frame // 257
        return np.clip(np.round(frame), 0, 255).astype(np.uint8)


def _array(frame: Any) -> np.ndarray:
    if isinstance(frame, list) and frame and np.ndim(frame[-1]) >= 2:
        frame = frame[-1]  # all frames since the last call; the last one is the present
    array = np.asarray(frame)
    if array.ndim not in (2, 3) or not array.size or array.dtype.kind not in "biuf":
        what = f"an array of shape {array.shape}" if array.ndim else f"{type(frame).__name__}"
        raise GeneralistError(f"The environment renders {what}; expected a picture.")
    return array


def _three_channels(frame: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, C) or (C, H, W) to (H, W, 3), without an alpha channel."""
    if frame.ndim == 2:
        frame = frame[..., None]
    if frame.shape[-1] not in (1, 2, 3, 4) and frame.shape[0] in (1, 2, 3, 4):
        frame = np.moveaxis(frame, 0, -1)
    channels = frame.shape[-1]
    if channels > 4:
        raise GeneralistError(f"The environment renders {channels} channels; expected 1 to 4.")
    return np.repeat(frame[..., :1], 3, axis=-1) if channels < 3 else frame[..., :3]


def _fitted(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture as large as fits into (height, width), with black margins."""
    with needing("Filming"):
        import cv2

    scale = min(height / picture.shape[0], width / picture.shape[1])
    if scale >= 1:
        scale = int(scale)  # whole pixels stay sharp
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    resized = cv2.resize(
        np.ascontiguousarray(picture),
        size,
        interpolation=cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA,
    )
    whole = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    whole[top : top + size[1], left : left + size[0]] = resized
    return whole


def _captioned(picture: np.ndarray, trace: Trace) -> np.ndarray:
    with needing("Filming"):
        import cv2

    height, width = picture.shape[:2]
    whole = np.zeros((height + _BAR, width, 3), np.uint8)
    whole[:height] = picture
    text = f"step {trace.steps}  return {trace.return_:.4g}"
    if trace.action is not None:
        text += f"  action {_short(trace.action)}"
    size = min(0.45, width / (11 * len(text)) / 0.9)
    font, white = cv2.FONT_HERSHEY_SIMPLEX, (235, 235, 235)
    cv2.putText(whole, text, (6, height + 19), font, size, white, 1, cv2.LINE_AA)
    return whole


def _short(action: Any) -> str:
    if isinstance(action, (dict, tuple)):
        return "..."
    values = np.ravel(action)[:6]
    return " ".join(f"{v:.2f}" if isinstance(v, np.floating) else str(v) for v in values)
