"""Frames as the codes of the frame tokenizer, one frame a step or a stack of them.

Legend: N = steps, F = frames of a step, H, W = height and width, C = 1 (grey) or 3 (RGB).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from generalist.errors import GeneralistError, needing
from generalist.tokenization.background import Background
from generalist.tokenization.codec import Codec, Toolbox

FRAMES_AT_ONCE = 256  # bounds the memory of an episode's resized frames


@dataclass(frozen=True)
class ImageCodec(Codec):
    """A frame (H, W, C) as `codes` tokens; lossy, the shape comes back.

    Attributes:
        codes: of a frame.
        codebook_size: how many different codes there are.
        background: the still background itself, or the name by which the frame tokenizer knows it.
            With None, or a name that it does not know, black takes its place.
    """

    kind: ClassVar[str] = "image"
    range_name: ClassVar[str] = "image"

    codes: int
    codebook_size: int
    background: Background | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.background, dict):  # as JSON has it
            object.__setattr__(self, "background", Background(**self.background))

    @property
    def tokens(self) -> int:
        """K, the codes of a frame."""
        return self.codes

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """K intervals, all alike: the codebook."""
        return ((0, self.codebook_size),) * self.tokens

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, *shape) uint8 frames to (N, K) codes."""
        tokenizer = _frame_tokenizer(toolbox)
        chunks = [np.zeros((0, self.codes), np.int64)]
        for frames in self.frames_of(values):
            chunks.append(tokenizer.encode(frames, self.background))
        return np.concatenate(chunks).astype(np.int64).reshape(len(values), self.tokens)

    def frames_of(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """RGB frames of values, in pieces that bound the memory.

        Args:
            values: (N, *shape) uint8.

        Yields:
            (F, H, W, 3) uint8, F at most `FRAMES_AT_ONCE`; grey frames have three equal channels.

        Raises:
            ValueError: the values have another shape or dtype; the message goes on after the name
                of the field.
        """
        values = np.asarray(values)
        if values.shape[1:] != self.shape:
            raise ValueError(f"has shape {values.shape[1:]} a step, expected {self.shape}")
        if values.dtype != np.uint8:
            raise ValueError(f"has dtype {values.dtype}, expected uint8 pixels")
        frames = self._to_frames(values)
        for start in range(0, len(frames), FRAMES_AT_ONCE):
            chunk = frames[start : start + FRAMES_AT_ONCE]
            if chunk.shape[-1] == 1:
                chunk = np.repeat(chunk, 3, axis=-1)
            yield np.ascontiguousarray(chunk)

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, K) codes to (N, *shape) uint8 frames, about as they were."""
        with needing("Showing frames"):
            import cv2

        codes = np.asarray(codes)
        height, width, channels = self._frame_shape
        frames = _frame_tokenizer(toolbox).decode(codes.reshape(-1, self.codes), self.background)
        if frames.shape[1:3] != (height, width) and len(frames):
            frames = np.stack([cv2.resize(frame, (width, height)) for frame in frames])
        if channels == 1:
            frames = frames.mean(axis=-1, keepdims=True)
        return self._from_frames(frames.astype(np.uint8), len(codes))

    @property
    def _frame_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.shape

    def _to_frames(self, values: np.ndarray) -> np.ndarray:
        """(N, *shape) values to (N * F, H, W, C)."""
        return values

    def _from_frames(self, frames: np.ndarray, steps: int) -> np.ndarray:
        """Inverse of `_to_frames`."""
        return frames


@dataclass(frozen=True)
class FrameStackCodec(ImageCodec):
    """Frames in any other arrangement, such as (H, W), (3, H, W) or a stack (4, H, W).

    Channels whose number is a multiple of three are RGB frames; other ones are grey frames, one
    each. So (12, H, W) is four RGB frames and (H, W, 4) four grey ones. Each frame is `codes`
    tokens, in the order in which they stand.
    """

    kind: ClassVar[str] = "frames"

    height_axis: int = 0
    channel_axis: int | None = None
    channels: int = 1  # of one frame: 1 or 3

    @property
    def frames(self) -> int:
        """F."""
        return math.prod(self.shape) // math.prod(self._frame_shape)

    @property
    def tokens(self) -> int:
        """K, the codes of all frames of a stack."""
        return self.codes * self.frames

    @property
    def _frame_shape(self) -> tuple[int, ...]:
        return (*self.shape[self.height_axis : self.height_axis + 2], self.channels)

    def _to_frames(self, values: np.ndarray) -> np.ndarray:
        height, width, channels = self._frame_shape
        if self._channels_last:
            values = np.moveaxis(values, -1, -3)
        return np.moveaxis(values.reshape(-1, channels, height, width), 1, -1)

    def _from_frames(self, frames: np.ndarray, steps: int) -> np.ndarray:
        values = np.moveaxis(frames, -1, 1)
        if not self._channels_last:
            return values.reshape(steps, *self.shape)
        *before, height, width, channels = self.shape
        return np.moveaxis(values.reshape(steps, *before, channels, height, width), -3, -1)

    @property
    def _channels_last(self) -> bool:
        return self.channel_axis is not None and self.channel_axis > self.height_axis


def _frame_tokenizer(toolbox: Toolbox):  # noqa: ANN202 - imported lazily, it loads torch
    if toolbox.frames is None:
        raise GeneralistError(
            "This processor has no frame tokenizer, so it cannot code images: "
            "train one with `generalist tokenizer train frames`."
        )
    return toolbox.frames
