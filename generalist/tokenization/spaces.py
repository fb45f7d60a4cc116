"""Gymnasium spaces to a layout, with no code from the user.

| space                                               | codec                               |
|-----------------------------------------------------|-------------------------------------|
| Box uint8 0..255, frames of 32 pixels a side        | image; frames (`envs/frames.py`)    |
| Box of floats                                       | continuous, one token an element    |
| Box of integers or bool (H, W, C), C >= 2, packable | grid, one token a cell              |
| other Box of integers or bool                       | discrete, one token an element      |
| Discrete, MultiDiscrete, MultiBinary                | discrete                            |
| any of these with more than 1,024 values            | digits, two tokens or more each     |
| Text (observations)                                 | text, a slot of fixed length        |
| Text (actions)                                      | characters, one token a character   |
| Written (`envs/written.py`), a whole action         | written, one token after the other  |
| Dict, Tuple                                         | their parts, keys sorted            |
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces

from generalist.envs.frames import frame_axes, is_full_uint8
from generalist.envs.written import Written
from generalist.episode import IntegerKey, Path, path_name, sorted_keys
from generalist.errors import GeneralistError
from generalist.tokenization.characters import CharactersCodec
from generalist.tokenization.codec import Codec
from generalist.tokenization.continuous import ContinuousCodec, coded_bounds
from generalist.tokenization.digits import DigitsCodec, digits_for
from generalist.tokenization.discrete import DiscreteCodec
from generalist.tokenization.grid import GridCodec
from generalist.tokenization.image import FrameStackCodec, ImageCodec
from generalist.tokenization.layout import Layout, Part, Role, stored_layout
from generalist.tokenization.text_fields import TextFieldCodec, WrittenCodec
from generalist.vocabulary import Vocabulary

if TYPE_CHECKING:
    from generalist.tokenization.codec import Toolbox

LONGEST_TIMESTEP_TOKENS = 2**14  # longer is surely a mistake, such as a long video in one step
MANY_TOKENS = 2**10  # of one field: more may be meant, but is said
MOST_VALUES = 2**62  # of an integer: arithmetic in int64
RESHAPE = (
    "reshape it to frames of at least 32x32 pixels, (H, W), (H, W, 3), (3, H, W) or a stack of "
    "these, with gymnasium.wrappers.ReshapeObservation or ResizeObservation"
)


def build_layout(
    observation_space: spaces.Space,
    action_space: spaces.Space,
    *,
    vocabulary: Vocabulary,
    toolbox: Toolbox,
    background: str | None = None,
) -> Layout:
    """The layout of one timestep.

    A field of more than 1,024 tokens is warned of.

    Args:
        observation_space: What the environment shows.
        action_space: What it takes.
        vocabulary: The ranges that ids are from.
        toolbox: The trained parts that codecs need.
        background: Name of the task whose still background the frame tokenizer may know.

    Raises:
        GeneralistError: A part of a space cannot be laid out; the message names it and says why.
    """
    builder = _Builder(vocabulary, toolbox, background)
    fields = [
        *builder.fields("observation", observation_space, ()),
        *builder.fields("action", action_space, ()),
    ]
    layout = stored_layout(fields, vocabulary.special("separator"))
    for role in ("observation", "action"):
        if not any(part.role == role and part.tokens for part in fields):
            raise GeneralistError(f"The {role} space is empty, so there is nothing to lay out.")
    if layout.is_written and len(layout.parts_of("action")) > 1:
        raise GeneralistError(
            f"{action_space} cannot be laid out: text that is written has to be the whole action."
        )
    if layout.tokens_per_timestep > LONGEST_TIMESTEP_TOKENS:
        raise GeneralistError(
            f"One timestep would take {layout.tokens_per_timestep} tokens, more than "
            f"{LONGEST_TIMESTEP_TOKENS}; reduce the spaces with a wrapper."
        )
    for field in layout.fields:
        if field.codec.tokens > MANY_TOKENS:
            warnings.warn(
                f"{field.name} takes {field.codec.tokens} tokens a step; reduce it with a wrapper. "
                "Frames take 36 each where their space is uint8 from 0 to 255.",
                stacklevel=3,
            )
    return layout


class _Builder:
    """Chooses a codec for each leaf of a space; ValueErrors say why there is none."""

    def __init__(self, vocabulary: Vocabulary, toolbox: Toolbox, background: str | None) -> None:
        self.vocabulary = vocabulary
        self.toolbox = toolbox
        self.background = background

    # Each method takes a space and gives its fields or its codec.

    def fields(self, role: Role, space: spaces.Space, path: Path) -> Iterator[Part]:
        if isinstance(space, (spaces.Dict, spaces.Tuple)):
            for key, below in self.within(role, space, path):
                yield from self.fields(role, below, (*path, key))
            return
        try:
            codec = self.codec(role, space)
        except ValueError as error:
            raise _refusal(role, path, space=space, reason=str(error)) from None
        yield Part(role, path, codec, self.vocabulary[codec.range_name].start)

    def within(
        self, role: Role, space: spaces.Dict | spaces.Tuple, path: Path
    ) -> Iterator[tuple[str | int, spaces.Space]]:
        """The spaces within, in the order of their fields."""
        if path and not len(space.spaces):
            raise _refusal(role, path, space=space, reason="it is empty")
        if isinstance(space, spaces.Tuple):
            yield from enumerate(space.spaces)
            return
        for key in space.spaces:
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                reason = f"its key {key!r} is no string and no integer"
                raise _refusal(role, path, space=space, reason=reason)
        for key in sorted_keys(space.spaces):
            yield IntegerKey(key) if isinstance(key, int) else key, space.spaces[key]

    def codec(self, role: Role, space: spaces.Space) -> Codec:
        if isinstance(space, spaces.Box):
            return self.box(space)
        if isinstance(space, spaces.Discrete):
            low, counts = [int(space.start)], [int(space.n)]
            return self.integers((), space.dtype, low=low, count=counts)
        if isinstance(space, spaces.MultiDiscrete):
            low, counts = space.start.ravel().tolist(), space.nvec.ravel().tolist()
            return self.integers(space.shape, space.dtype, low=low, count=counts)
        if isinstance(space, spaces.MultiBinary):
            size = math.prod(space.shape)
            return self.integers(space.shape, space.dtype, low=[0] * size, count=[2] * size)
        if isinstance(space, Written) and role == "action":
            return WrittenCodec((), "str", space.max_tokens, self.vocabulary["text"].size)
        if isinstance(space, spaces.Text):
            return self.text(space) if role == "observation" else self.characters(space)
        raise ValueError(f"there is no codec for {type(space).__name__} spaces")

    def box(self, space: spaces.Box) -> Codec:
        if np.issubdtype(space.dtype, np.floating):
            return self.continuous(space)
        if not (np.issubdtype(space.dtype, np.integer) or space.dtype == np.bool_):
            raise ValueError(f"its dtype {space.dtype} is no float, integer or bool")
        if is_full_uint8(space):
            if frame_axes(space.shape) is not None:
                return self.image(space)
            if math.prod(space.shape) > MANY_TOKENS:
                raise ValueError(f"it would take {math.prod(space.shape)} tokens a step; {RESHAPE}")
        low, count = _integers(space)
        return self.grid(space) or self.integers(space.shape, space.dtype, low=low, count=count)

    def grid(self, space: spaces.Box) -> GridCodec | None:
        """One token a cell, where the channels of all cells have the same few values."""
        if len(space.shape) != 3 or space.shape[-1] < 2 or not math.prod(space.shape):
            return None
        for bound in (space.low, space.high):
            if (bound != bound[0, 0]).any():
                return None  # codes of a cell would stand for what other cells may hold
        channels = spaces.Box(space.low[0, 0], space.high[0, 0], dtype=space.dtype.type)
        low, count = _integers(channels)
        if math.prod(count) > self.vocabulary["discrete"].size:
            return None
        return GridCodec(space.shape, str(space.dtype), tuple(low), tuple(count))

    def continuous(self, space: spaces.Box) -> ContinuousCodec:
        low, high = (bound.ravel().astype(np.float64).tolist() for bound in (space.low, space.high))
        bounds = [coded_bounds(a, b) for a, b in zip(low, high, strict=True)]
        return ContinuousCodec(
            shape=space.shape,
            dtype=str(space.dtype),
            low=tuple(low for low, _ in bounds),
            high=tuple(high for _, high in bounds),
            bins=self.vocabulary["continuous"].size,
        )

    def integers(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype,
        *,
        low: Sequence[int],
        count: Sequence[int],
    ) -> Codec:
        most, size = max(count, default=0), self.vocabulary["discrete"].size
        ranges = tuple(shape), str(np.dtype(dtype)), tuple(low), tuple(count)
        if most <= size:
            return DiscreteCodec(*ranges)
        if most > MOST_VALUES:
            raise ValueError(
                f"it has {most} values an element, as good as no bounds; say narrower ones in a "
                "wrapper"
            )
        digits, base = zip(*(digits_for(n, size) for n in count), strict=True)
        return DigitsCodec(*ranges, digits, base)

    def image(self, space: spaces.Box) -> ImageCodec:
        frames = self.toolbox.frames
        if frames is None:
            raise ValueError(
                "this processor has no frame tokenizer; train one with "
                "`generalist tokenizer train frames`"
            )
        axes, shape = frame_axes(space.shape), space.shape
        assert axes is not None
        codes = frames.codes_per_frame, frames.codebook_size, self.background
        if axes == (0, 2) and shape[-1] in (1, 3):
            return ImageCodec(shape, str(space.dtype), *codes)
        channels = 1 if axes.channel is None or shape[axes.channel] % 3 else 3
        return FrameStackCodec(shape, str(space.dtype), *codes, *axes, channels)

    def text(self, space: spaces.Text) -> TextFieldCodec:
        bytes_per_character = max((len(c.encode()) for c in space.character_set), default=1)
        slot = space.max_length * bytes_per_character
        return TextFieldCodec((), "str", slot, self.vocabulary["text"].size)

    def characters(self, space: spaces.Text) -> CharactersCodec:
        characters = "".join(sorted(space.character_set))
        if len(characters) >= self.vocabulary["discrete"].size:
            raise ValueError(
                f"its set has {len(characters)} characters; an action has room for "
                f"{self.vocabulary['discrete'].size - 1}"
            )
        return CharactersCodec((), "str", characters, space.min_length, space.max_length)


def _refusal(role: Role, path: Path, *, space: spaces.Space, reason: str) -> GeneralistError:
    return GeneralistError(f"{path_name((role, *path))}: {space} cannot be laid out: {reason}.")


def _integers(space: spaces.Box) -> tuple[list[int], list[int]]:
    """Smallest value and number of values of each element, row-major, as Python integers."""
    low = [int(x) for x in space.low.ravel().tolist()]
    high = [int(x) for x in space.high.ravel().tolist()]
    return low, [b - a + 1 for a, b in zip(low, high, strict=True)]
