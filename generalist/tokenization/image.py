"""Frames as the codes of the frame tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from generalist.errors import GeneralistError, needing
from generalist.tokenization.codec import Codec, Toolbox

FRAMES_AT_ONCE = 256  # bounds the memory of an episode's resized frames


@dataclass(frozen=True)
class ImageCodec(Codec):
    """A frame (H, W, C) with C of 1 or 3 as `codes` tokens; lossy, the shape comes back.

    `background` names the task whose still background the frame tokenizer knows, if any.
    """

    kind: ClassVar[str] = "image"
    range_name: ClassVar[str] = "image"

    codes: int
    codebook_size: int
    background: str | None = None

    @property
    def tokens(self) -> int:
        return self.codes

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        return ((0, self.codebook_size),) * self.codes

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        values = np.asarray(values)
        if values.shape[1:] != self.shape:
            raise ValueError(f"has shape {values.shape[1:]} a step, expected {self.shape}")
        if values.dtype != np.uint8:
            raise ValueError(f"has dtype {values.dtype}, expected uint8 pixels")
        if values.shape[-1] == 1:
            values = np.repeat(values, 3, axis=-1)
        tokenizer = _frame_tokenizer(toolbox)
        chunks = [
            tokenizer.encode(values[start : start + FRAMES_AT_ONCE], self.background)
            for start in range(0, len(values), FRAMES_AT_ONCE)
        ]
        return np.concatenate(chunks).astype(np.int64) if chunks else np.zeros((0, self.codes), int)

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        with needing("Showing frames"):
            import cv2

        height, width, channels = self.shape
        frames = _frame_tokenizer(toolbox).decode(np.asarray(codes), self.background)
        if frames.shape[1:3] != (height, width):
            frames = np.stack([cv2.resize(frame, (width, height)) for frame in frames])
        if channels == 1:
            frames = frames.mean(axis=-1, keepdims=True)
        return frames.astype(np.uint8)


def _frame_tokenizer(toolbox: Toolbox):  # noqa: ANN202 - imported lazily, it loads torch
    if toolbox.frames is None:
        raise GeneralistError(
            "This processor has no frame tokenizer, so it cannot code images: "
            "train one with `generalist tokenizer train frames`."
        )
    return toolbox.frames
