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
_DEEP = ("I", "F")  # Pillow's modes of 16-bit and 32-bit pixels


class EncodedFrames:
    """T pictures (PNG, JPEG, ...) that are decoded only when their pixels are asked for.

    A picture becomes (H, W, 3) uint8, a grey one (H, W, 1). One of four channels is taken for four
    grey frames on top of each other, as the JAT dataset has them, and becomes the last, newest one.
    """

    def __init__(self, files: list[bytes]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, steps: slice) -> EncodedFrames:
        return EncodedFrames(self._files[steps])

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
            picture.load()
        except UnidentifiedImageError:
            raise GeneralistError(
                f"the picture at step {step} cannot be read: it is of no known format."
            ) from None
        except Exception as error:  # its decoders raise whatever their damaged input leads to
            raise GeneralistError(f"the picture at step {step} cannot be read: {error}.") from error
        if picture.mode == "RGBA":
            return np.asarray(picture)[:, :, _RGBA_CHANNELS - 1 :]
        if picture.mode == "L":
            return np.asarray(picture)[:, :, None]
        if picture.mode.startswith(_DEEP):  # converting would clip them
            raise GeneralistError(
                f"the picture at step {step} has more than 8 bits a pixel (mode {picture.mode}); "
                "convert such pictures to 8 bits first."
            )
        return np.asarray(picture.convert("RGB"))


@dataclass
class Recording:
    """An episode as its source holds it.

    Attributes:
        observations: tree of (T, ...), with EncodedFrames in place of pictures' arrays.
        actions: tree of (T, ...).
        rewards: (T,), raw.
        terminated: whether the task ended it.
        truncated: whether a limit cut it.
        instruction: what to do, in words.
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
        self.check_rewards()
        return Episode(
            task=task,
            observations=tree_map(np.asarray, self.observations),
            actions=tree_map(np.asarray, self.actions),
            rewards=np.asarray(self.rewards),
            terminated=self.terminated,
            truncated=self.truncated,
            instruction=self.instruction,
            info=dict(self.info or {}),
        )

    def check_rewards(self) -> None:
        """Raise GeneralistError that names the step of a reward which is not finite."""
        rewards = np.asarray(self.rewards)
        if not np.isfinite(rewards).all():
            step = int(np.argmin(np.isfinite(rewards)))
            raise GeneralistError(f"reward is {rewards[step]} at step {step}.")


@dataclass(frozen=True)
class Document:
    """A text, which is an episode of its writer."""

    text: str


class RecordingError(GeneralistError):
    """What is wrong with one recording: the others may be imported without it."""


@dataclass(frozen=True)
class Load:
    """Reads one recording when it is called.

    Attributes:
        read: reads it; raises GeneralistError where it is damaged.
        where: the file and rows it comes from, for messages; "" where its number says it all.
    """

    read: Callable[[], Recording | Document]
    where: str = ""

    def __call__(self) -> Recording | Document:
        """Read the recording."""
        return self.read()

    def located(self, number: int, error: GeneralistError) -> RecordingError:
        """The error that recording `number` met, with its file and rows unless it names them."""
        known = not self.where or self.where in str(error)
        place = "" if known else f" It stands in {self.where}."
        return RecordingError(f"episode {number}: {error}{place}")

    @classmethod
    def failing(cls, reason: str, where: str = "") -> Load:
        """A recording that is known to be damaged: reading it raises GeneralistError(reason)."""

        def fail() -> Recording:
            raise GeneralistError(reason)

        return cls(fail, where)


@dataclass(frozen=True)
class Environment:
    """What a source says of the environment its recordings were made in.

    task: its name here. options: what `generalist.make(task, **options)` takes to make it again.
    lost: wrappers it had which cannot be made again. spec: all that is stored of it, as JSON.
    """

    task: str
    options: dict[str, Any]
    lost: tuple[str, ...]
    spec: dict[str, Any]


class Source(Protocol):
    """Recordings in an order that is always the same.

    Attributes:
        name: for messages.
        is_text: whether it holds documents, not episodes.
        facts: JSON-able, what the recordings depend on; stored in dataset.json.
        total: how many there are; None where that is not known before they are read.
        notes: what is worth knowing, such as columns that were left out; it may grow while reading.
        environment: what they were recorded in; None where nothing is known of it.
    """

    name: str
    is_text: bool
    facts: dict[str, Any]
    total: int | None
    notes: list[str]
    environment: Environment | None

    def spaces(self) -> tuple[Space, Space] | None:
        """Observation and action space as the source states them; None: see the recordings."""

    def recordings(self, first: int) -> Iterator[Load]:
        """From number `first` on. Raises GeneralistError for what is wrong with more than one."""
