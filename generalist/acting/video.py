"""Videos of episodes: mp4 files with the step, the return and the action written below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from generalist.acting.episodes import Trace
from generalist.errors import GeneralistError, needing

MAX_FRAMES = 1_500  # what comes later is left out
_LONG_STEPS = 500  # tasks with longer episodes leave out every second frame, at the same speed
_LEAST_HEIGHT = 240  # small frames are enlarged, so that the caption can be read
_BAR = 28  # pixels below the picture


class VideoWriter:
    """Writes what an environment made with render_mode="rgb_array" shows, one call a step."""

    def __init__(self, path: Path, env: gymnasium.Env, max_steps: int) -> None:
        with needing("Filming"):
            import imageio

        self._every = 1 if max_steps <= _LONG_STEPS else 2
        self._frames = 0
        fps = env.metadata.get("render_fps") or 30
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._writer = imageio.get_writer(
            path, fps=max(5, fps / self._every), codec="libx264", macro_block_size=2
        )

    def __call__(self, env: gymnasium.Env, trace: Trace) -> None:
        """Add the frame the environment stands at, where it is its turn."""
        if len(trace.rewards) % self._every and not trace.done:
            return
        if self._frames >= MAX_FRAMES and not trace.done:
            return
        self._frames += 1
        frame = env.render()
        if not isinstance(frame, np.ndarray) or frame.ndim != 3:
            raise GeneralistError(
                f"{env} was asked for a video but does not render frames; go without video."
            )
        self._writer.append_data(_captioned(frame, trace))

    def close(self) -> None:
        """Finish the file; it can be played after this, also where the episode was cut short."""
        self._writer.close()


def _captioned(frame: np.ndarray, trace: Trace) -> np.ndarray:
    with needing("Filming"):
        import cv2

    scale = max(1, -(-_LEAST_HEIGHT // frame.shape[0]))
    frame = frame.astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = (size - size % 2 for size in frame.shape[:2])  # the codec wants even sizes
    picture = np.zeros((height + _BAR, width, 3), np.uint8)
    picture[:height] = frame[:height, :width]
    text = f"step {len(trace.rewards)}  return {trace.return_:.4g}"
    if trace.action is not None:
        text += f"  action {_short(trace.action)}"
    size = min(0.45, width / (11 * len(text)) / 0.9)
    font, white = cv2.FONT_HERSHEY_SIMPLEX, (235, 235, 235)
    cv2.putText(picture, text, (6, height + 19), font, size, white, 1, cv2.LINE_AA)
    return picture


def _short(action: Any) -> str:
    if isinstance(action, (dict, tuple)):
        return "..."
    values = np.ravel(action)[:6]
    return " ".join(f"{v:.2f}" if isinstance(v, np.floating) else str(v) for v in values)
