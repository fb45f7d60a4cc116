"""A mask of legal actions to the legal ids of each action token.

Legend: k = action tokens of a timestep, V = legal ids of one of them without any mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from generalist.episode import IntegerKey, path_name
from generalist.errors import GeneralistError
from generalist.tokenization.codec import Codec
from generalist.tokenization.digits import DigitsCodec
from generalist.tokenization.discrete import DiscreteCodec
from generalist.tokenization.layout import Field, Layout


@dataclass(frozen=True)
class NextDigit:
    """Which codes a later digit of an integer may have, once those before it are chosen.

    codec: of the integers. element: number of the integer, row-major.
    place: how many of its digits come before this one.
    allowed: (count,) bool, True for each legal value of the integer.
    """

    codec: DigitsCodec
    element: int
    place: int
    allowed: np.ndarray

    def __call__(self, codes: Sequence[int]) -> np.ndarray:
        """(V,) bool. codes: what was chosen for the action tokens before, each from 0."""
        before = tuple(codes[len(codes) - self.place :])
        return self.codec.legal_after(self.element, before, self.allowed)


# (V,) bool, at once or once the codes of the tokens before are known; None: all V are legal.
TokenMask = np.ndarray | NextDigit | None


def token_masks(layout: Layout, mask: Any) -> list[TokenMask]:
    """The legal ids of each of the k action tokens.

    mask: as `space.sample` of the layout's action space takes it (see `generalist.envs.masks`),
        with flags of any dtype; None where everything is legal.

    Raises GeneralistError that names the field whose mask has the wrong form or allows nothing.
    """
    if mask is None:
        return [None] * layout.action_tokens
    return list(_of_fields(list(layout.action_fields), mask, 0))


def _of_fields(fields: Sequence[Field], mask: Any, depth: int) -> Iterator[TokenMask]:
    """Masks of the tokens of fields whose paths are the same up to `depth`."""
    if mask is None:
        yield from [None] * sum(field.codec.tokens for field in fields)
    elif len(fields[0].path) == depth:
        yield from _of_field(fields[0], mask)
    else:
        parts: dict[str | int, list[Field]] = {}  # keys in the layout's own order
        for field in fields:
            parts.setdefault(field.path[depth], []).append(field)
        first = fields[0].path[depth]
        is_tuple = isinstance(first, int) and not isinstance(first, IntegerKey)
        name = path_name((fields[0].role, *fields[0].path[:depth]))
        check_parts(mask, range(len(parts)) if is_tuple else list(parts), name)
        for key, below in parts.items():
            yield from _of_fields(below, mask[key], depth + 1)


def _of_field(field: Field, mask: Any) -> Iterator[TokenMask]:
    codec = field.codec
    if isinstance(codec, DigitsCodec):
        yield from _of_digits(codec, mask, field.name)
    elif not isinstance(codec, DiscreteCodec):
        raise GeneralistError(
            f"{field.name} has a mask of legal actions, but its values are {codec.kind}, and only "
            "those of Discrete, MultiDiscrete and MultiBinary spaces have masks."
        )
    elif _is_binary(codec, mask):
        for bit in checked_bits(mask, codec.shape, field.name).ravel():
            yield None if bit == EITHER else np.arange(2) == bit
    else:
        yield from _of_elements(mask, np.reshape(codec.count, codec.shape), field.name)


def _is_binary(codec: Codec, mask: Any) -> bool:
    """Whether a field is a MultiBinary: its mask is an array of its own shape, not a tuple."""
    is_bits = isinstance(mask, np.ndarray) and mask.ndim == len(codec.shape) > 0
    return is_bits and codec.dtype == "int8" and set(codec.legal) == {(0, 2)}


def _of_digits(codec: DigitsCodec, mask: Any, name: str) -> Iterator[TokenMask]:
    elements = _of_elements(mask, np.reshape(codec.count, codec.shape), name)
    for element, allowed in enumerate(elements):
        yield codec.legal_after(element, (), allowed)
        for place in range(1, codec.digits[element]):
            yield NextDigit(codec, element, place, allowed)


def _of_elements(mask: Any, counts: np.ndarray, name: str) -> Iterator[np.ndarray]:
    """(count,) bool of each element, row-major."""
    if counts.ndim == 0:
        yield checked_flags(mask, int(counts), name)
        return
    check_length(mask, len(counts), name)
    for index, (each, count) in enumerate(zip(mask, counts, strict=True)):
        yield from _of_elements(each, count, f"{name}[{index}]")
