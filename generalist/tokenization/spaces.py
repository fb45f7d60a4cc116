"""Gymnasium spaces to a layout, with no code from the user.

| space                                             | codec                               |
|---------------------------------------------------|-------------------------------------|
| Box uint8 0..255, (H, W, 1 or 3), H and W >= 32   | image                               |
| Box of floats                                     | continuous, one token an element    |
| Box of integers (H, W, C), C >= 2, packable       | grid, one token a cell              |
| other Box of integers                             | discrete, one token an element      |
| Discrete, MultiDiscrete, MultiBinary              | discrete                            |
| Text (observations)                               | text, a slot of fixed length        |
| Dict, Tuple                                       | their parts, keys in lexicographic order |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces

from generalist.episode import Path
from generalist.errors import GeneralistError
from generalist.tokenization.codec import Codec
from generalist.tokenization.continuous import ContinuousCodec
from generalist.tokenization.discrete import DiscreteCodec
from generalist.tokenization.grid import GridCodec
from generalist.tokenization.image import ImageCodec
from generalist.tokenization.layout import Field, Layout, Role
from generalist.tokenization.text_fields import TextFieldCodec
from generalist.vocabulary import Vocabulary

if TYPE_CHECKING:
    from generalist.tokenization.codec import Toolbox

SMALLEST_IMAGE = 32  # pixels a side; smaller uint8 boxes are grids of integers
LARGEST_BOUND = 1e5  # a larger "bound" says nothing about the values that occur
LONGEST_TIMESTEP_TOKENS = 2**14  # longer is surely a mistake, such as a long video in one step


def build_layout(
    observation_space: spaces.Space,
    action_space: spaces.Space,
    vocabulary: Vocabulary,
    toolbox: Toolbox,
    background: str | None = None,
) -> Layout:
    """The layout of one timestep; raises GeneralistError saying which part cannot be laid out."""
    builder = _Builder(vocabulary, toolbox, background)
    fields = [
        *builder.fields("observation", observation_space, ()),
        *builder.fields("action", action_space, ()),
    ]
    layout = Layout(tuple(fields), vocabulary.special("separator"))
    for role, tokens in (
        ("observation", layout.observation_tokens),
        ("action", layout.action_tokens),
    ):
        if tokens == 0:
            raise GeneralistError(f"The {role} space is empty, so there is nothing to lay out.")
    if layout.tokens_per_timestep > LONGEST_TIMESTEP_TOKENS:
        raise GeneralistError(
            f"One timestep would take {layout.tokens_per_timestep} tokens, more than "
            f"{LONGEST_TIMESTEP_TOKENS}; reduce the spaces with a wrapper."
        )
    return layout


class _Builder:
    def __init__(self, vocabulary: Vocabulary, toolbox: Toolbox, background: str | None) -> None:
        self.vocabulary = vocabulary
        self.toolbox = toolbox
        self.background = background

    def fields(self, role: Role, space: spaces.Space, path: Path) -> Iterator[Field]:
        if isinstance(space, spaces.Dict):
            for key in sorted(space.spaces):
                yield from self.fields(role, space.spaces[key], (*path, key))
        elif isinstance(space, spaces.Tuple):
            for index, part in enumerate(space.spaces):
                yield from self.fields(role, part, (*path, index))
        else:
            try:
                codec = self.codec(role, space)
            except ValueError as error:
                name = "/".join([role, *map(str, path)])
                raise GeneralistError(f"{name}: {space} cannot be laid out: {error}.") from None
            yield Field(role, path, codec, self.vocabulary[codec.range_name].start)

    def codec(self, role: Role, space: spaces.Space) -> Codec:
        if isinstance(space, spaces.Box):
            return self.box(space)
        if isinstance(space, spaces.Discrete):
            return self.discrete((), space.dtype, [space.start], [space.n])
        if isinstance(space, spaces.MultiDiscrete):
            return self.discrete(space.shape, space.dtype, space.start, space.nvec)
        if isinstance(space, spaces.MultiBinary):
            size = math.prod(space.shape)
            return self.discrete(space.shape, space.dtype, [0] * size, [2] * size)
        if isinstance(space, spaces.Text) and role == "observation":
            return self.text(space)
        if isinstance(space, spaces.Text):
            raise ValueError("a Text action has no fixed number of tokens")
        raise ValueError(f"there is no codec for {type(space).__name__} spaces")

    def box(self, space: spaces.Box) -> Codec:
        if np.issubdtype(space.dtype, np.floating):
            return self.continuous(space)
        if not np.issubdtype(space.dtype, np.integer):
            raise ValueError(f"its dtype {space.dtype} is neither a float nor an integer")
        if _is_image(space):
            return self.image(space)
        low, count = space.low.astype(np.int64), _counts(space)
        if len(space.shape) == 3 and space.shape[-1] > 1:
            channel_low = low.min(axis=(0, 1))
            channel_count = (low + count).max(axis=(0, 1)) - channel_low
            if math.prod(int(n) for n in channel_count) <= self.vocabulary["discrete"].size:
                packed = tuple(map(int, channel_low)), tuple(map(int, channel_count))
                return GridCodec(space.shape, str(space.dtype), *packed)
        return self.discrete(space.shape, space.dtype, low, count)

    def continuous(self, space: spaces.Box) -> ContinuousCodec:
        low, high = space.low.ravel().astype(float), space.high.ravel().astype(float)
        bounded = (np.abs(low) <= LARGEST_BOUND) & (np.abs(high) <= LARGEST_BOUND) & (low < high)
        return ContinuousCodec(
            shape=space.shape,
            dtype=str(space.dtype),
            low=tuple(float(x) if b else None for x, b in zip(low, bounded, strict=True)),
            high=tuple(float(x) if b else None for x, b in zip(high, bounded, strict=True)),
            bins=self.vocabulary["continuous"].size,
        )

    def discrete(self, shape: tuple[int, ...], dtype, low, count) -> DiscreteCodec:  # noqa: ANN001
        most, size = int(np.max(count)), self.vocabulary["discrete"].size
        if most > size:
            raise ValueError(f"it has {most} values an element, the vocabulary has {size}")
        low, count = np.ravel(low).tolist(), np.ravel(count).tolist()
        return DiscreteCodec(tuple(shape), str(dtype), tuple(low), tuple(count))

    def image(self, space: spaces.Box) -> ImageCodec:
        frames = self.toolbox.frames
        if frames is None:
            raise ValueError(
                "this processor has no frame tokenizer; train one with "
                "`generalist tokenizer train frames`"
            )
        return ImageCodec(
            shape=space.shape,
            dtype=str(space.dtype),
            codes=frames.codes_per_frame,
            codebook_size=frames.codebook_size,
            background=self.background,
        )

    def text(self, space: spaces.Text) -> TextFieldCodec:
        bytes_per_character = max((len(c.encode()) for c in space.character_set), default=1)
        slot = space.max_length * bytes_per_character
        return TextFieldCodec((), "str", slot, self.vocabulary["text"].size)


def _is_image(space: spaces.Box) -> bool:
    return (
        space.dtype == np.uint8
        and len(space.shape) == 3
        and space.shape[-1] in (1, 3)
        and min(space.shape[:2]) >= SMALLEST_IMAGE
        and bool((space.low == 0).all() and (space.high == 255).all())
    )


def _counts(space: spaces.Box) -> np.ndarray:
    """Number of integers of each element, computed in Python integers: int64 bounds overflow."""
    pairs = zip(space.low.ravel().tolist(), space.high.ravel().tolist(), strict=True)
    counts = [min(high - low + 1, 2**62) for low, high in pairs]
    return np.array(counts, dtype=np.int64).reshape(space.shape)
