"""A mask of legal actions to the legal ids of each action token.

Legend: k = action tokens of a timestep, V = legal ids of one of them without any mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from generalist.envs.masks import (
    EITHER,
    check_length,
    check_parts,
    checked_bits,
    checked_flags,
)
from generalist.episode import is_index, path_name
from generalist.errors import GeneralistError
from generalist.tokenization.board_codecs import MoveCodec
from generalist.tokenization.codec import Codec
from generalist.tokenization.digits import DigitsCodec
from generalist.tokenization.layout import Layout, Part

# (V,) bool, or what makes it from the ids chosen before it in the timestep; None: all V are legal
TokenMask = np.ndarray | Callable[[Sequence[int]], np.ndarray] | None


@dataclass(frozen=True)
class DigitMask:
    """The legal codes of a digit, which depend on the digits before it.

    element, digit: Which element of the part, and which of its digits; not the first.
    allowed: (count,) bool, True for each legal value of the element.
    """

    part: Part
    element: int
    digit: int
    allowed: np.ndarray

    def __call__(self, ids: Sequence[int]) -> np.ndarray:
        """(V,) bool, given the ids of the action tokens before this one."""
        codec = self.part.codec
        assert isinstance(codec, DigitsCodec)
        prefix = tuple(token - self.part.start for token in ids[-self.digit :])
        return codec.legal_after(self.element, prefix, self.allowed)


def token_masks(layout: Layout, mask: Any) -> list[TokenMask]:
    """The legal ids of each of the k action tokens.

    mask: as `space.sample` of the layout's action space takes it (see `generalist.envs.masks`),
        with flags of any dtype; None where everything is legal.

    Raises GeneralistError that names the part whose mask has the wrong form or allows nothing.
    """
    if mask is None:
        return [None] * len(layout.legal)
    return list(_of_parts(layout.parts_of("action"), mask, 0))


def _of_parts(parts: Sequence[Part], mask: Any, depth: int) -> Iterator[TokenMask]:
    """Masks of the tokens of parts whose paths are the same up to `depth`."""
    if mask is None:
        yield from [None] * sum(part.tokens for part in parts)
    elif len(parts[0].path) == depth:
        yield from _of_part(parts[0], mask)
    else:
        by_key: dict[str | int, list[Part]] = {}  # keys in the layout's own order
        for part in parts:
            by_key.setdefault(part.path[depth], []).append(part)
        keys = range(len(by_key)) if is_index(parts[0].path[depth]) else list(by_key)
        check_parts(mask, keys, path_name((parts[0].role, *parts[0].path[:depth])))
        for key, below in by_key.items():
            yield from _of_parts(below, mask[key], depth + 1)


def _of_part(part: Part, mask: Any) -> Iterator[TokenMask]:
    codec = part.codec
    if isinstance(codec, DigitsCodec):
        counts = np.array(codec.count, dtype=np.int64).reshape(codec.shape)
        for element, flags in enumerate(_of_elements(mask, counts, part.name)):
            yield codec.legal_after(element, (), flags)
            for digit in range(1, codec.digits[element]):
                yield DigitMask(part, element, digit, flags)
        return
    if isinstance(codec, MoveCodec):
        yield codec.allowed(checked_flags(mask, len(codec.codes), part.name))
        return
    if codec.kind != "discrete":
        raise GeneralistError(
            f"{part.name} has a mask of legal actions, but its values are {codec.kind}, and only "
            "those of Discrete, MultiDiscrete and MultiBinary spaces have masks."
        )
    if _is_binary(codec, mask):
        for bit in checked_bits(mask, codec.shape, part.name).ravel():
            yield None if bit == EITHER else np.arange(2) == bit
    else:
        counts = np.array([stop - first for first, stop in codec.legal]).reshape(codec.shape)
        yield from _of_elements(mask, counts, part.name)


def _is_binary(codec: Codec, mask: Any) -> bool:
    """Whether a field is a MultiBinary: its mask is an array of its own shape, not a tuple."""
    is_bits = isinstance(mask, np.ndarray) and mask.ndim == len(codec.shape) > 0
    return is_bits and codec.dtype == "int8" and set(codec.legal) == {(0, 2)}


def _of_elements(mask: Any, counts: np.ndarray, name: str) -> Iterator[np.ndarray]:
    if counts.ndim == 0:
        yield checked_flags(mask, int(counts), name)
        return
    check_length(mask, len(counts), name)
    for index, (each, count) in enumerate(zip(mask, counts, strict=True)):
        yield from _of_elements(each, count, f"{name}[{index}]")
