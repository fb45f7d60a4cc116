"""What an importer reads from: recordings in order, of which none is read before it is wanted.

Legend: T = steps of a recording. A tree is an array or a nested dict or tuple of arrays.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from generalist.episode import Episode, Tree, tree_map
from generalist.errors import GeneralistError

if TYPE_CHECKING:
    from gymnasium.spaces import Space

_RGBA_CHANNELS = 4


class EncodedFrames:
    """T pictures (PNG, JPEG, ...) that are decoded only when their pixels are asked for.

    A picture becomes (H, W, 3) uint8, a grey one (H, W, 1). One of four channels is taken for four
    grey frames on top of each other, as the JAT dataset has them, and becomes the last, newest one.
    """

    def __init__(self, files: list[bytes]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of the first picture."""
        return self._decode(0).shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        frames = [self._decode(step) for step in range(len(self))]
        for step, frame in enumerate(frames):
            if frame.shape != frames[0].shape:
                raise GeneralistError(
                    f"the picture at step {step} has shape {frame.shape}, "
                    f"those before it {frames[0].shape}."
                )
        return np.stack(frames)

    def _decode(self, step: int) -> np.ndarray:
        from PIL import Image, UnidentifiedImageError

        try:
            picture = Image.open(io.BytesIO(self._files[step]))
            if picture.mode == "RGBA":
                return np.asarray(picture)[:, :, _RGBA_CHANNELS - 1 :]
            if picture.mode == "L":
                return np.asarray(picture)[:, :, None]
            return np.asarray(picture.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise GeneralistError(f"the picture at step {step} cannot be read: {error}.") from error


@dataclass
class Recording:
    """An episode as its source holds it.

    observations, actions: trees of (T, ...), with EncodedFrames in place of pictures' arrays.
    rewards: (T,), raw.
    info: JSON-able facts.
    """

    observations: Tree
    actions: Tree
    rewards: np.ndarray
    terminated: bool = False
    truncated: bool = False
    instruction: str | None = None
    info: dict[str, Any] | None = None

    def episode(self, task: str) -> Episode:
        """As an Episode of a task; raises GeneralistError on rewards that are not finite."""
        rewards = np.asarray(self.rewards)
        if not np.isfinite(rewards).all():
            step = int(np.argmin(np.isfinite(rewards)))
            raise GeneralistError(f"reward is {rewards[step]} at step {step}.")
        return Episode(
            task=task,
            observations=tree_map(np.asarray, self.observations),
            actions=tree_map(np.asarray, self.actions),
            rewards=rewards,
            terminated=self.terminated,
            truncated=self.truncated,
            instruction=self.instruction,
            info=dict(self.info or {}),
        )


@dataclass(frozen=True)
class Document:
    """A text, which is an episode of its writer."""

    text: str


Load = Callable[[], "Recording | Document"]


class Source(Protocol):
    """Recordings in an order that is always the same.

    name: for messages. is_text: whether it holds documents, not episodes.
    facts: JSON-able, what the recordings depend on; stored in dataset.json.
    total: how many there are, None where that is not known before they are read.
    notes: what is worth knowing, such as columns that were left out.
    """

    name: str
    is_text: bool
    facts: dict[str, Any]
    total: int | None
    notes: list[str]

    def spaces(self) -> tuple[Space, Space] | None:
        """Observation and action space as the source states them; None: see the recordings."""

    def recordings(self, first: int) -> Iterator[Load]:
        """From number `first` on, a function each that reads it; GeneralistError if damaged."""
