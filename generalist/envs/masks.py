"""Masks of legal actions, as environments give them in `info["action_mask"]`.

Gymnasium's `Space.sample(mask)` says what a mask is:

- of `Discrete`, (n,) flags;
- of `MultiDiscrete`, a tuple of such flags, one an element;
- of `MultiBinary`, an array of the space's shape: 0 or 1 for what an element must be, 2 for either;
- of `Dict` and `Tuple`, the masks of their parts, None where a part is free.

Gymnasium takes a mask that allows nothing for the smallest action; here it is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from generalist.errors import GeneralistError

EITHER = 2  # in a mask of MultiBinary


def checked_mask(space: spaces.Space, mask: Any, name: str = "action") -> Any:
    """`mask` in the very form that `space.sample` takes, int8; None where everything is legal.

    name: of the space, for errors.

    Raises GeneralistError that names the part of the space whose mask has the wrong form or allows
    nothing.
    """
    if mask is None:
        return None
    if isinstance(space, spaces.Discrete):
        return checked_flags(mask, int(space.n), name).astype(np.int8)
    if isinstance(space, spaces.MultiDiscrete):
        return _checked_elements(mask, space.nvec, name)
    if isinstance(space, spaces.MultiBinary):
        return checked_bits(mask, space.shape, name)
    if isinstance(space, spaces.Dict):
        check_parts(mask, tuple(space.spaces), name)
        return {
            key: checked_mask(part, mask[key], f"{name}/{key}")
            for key, part in space.spaces.items()
        }
    if isinstance(space, spaces.Tuple):
        check_parts(mask, range(len(space.spaces)), name)
        return tuple(
            checked_mask(part, mask[index], f"{name}/{index}")
            for index, part in enumerate(space.spaces)
        )
    if isinstance(space, spaces.Box):
        raise GeneralistError(f"{name} has a mask of legal actions, but a Box takes none.")
    return mask  # of a space that no layout has; `sample` says what is wrong with it


def _checked_elements(mask: Any, counts: np.ndarray, name: str) -> Any:
    """Flags of each element of a MultiDiscrete, in tuples nested as `counts` is."""
    if counts.ndim == 0:
        return checked_flags(mask, int(counts), name).astype(np.int8)
    check_length(mask, len(counts), name)
    return tuple(
        _checked_elements(each, count, f"{name}[{index}]")
        for index, (each, count) in enumerate(zip(mask, counts, strict=True))
    )


def checked_flags(mask: Any, count: int, name: str) -> np.ndarray:
    """(count,) bool, the legal ones of `count` values.

    Raises GeneralistError where the mask is not such, or allows nothing.
    """
    flags = _array(mask, name)
    if flags.shape != (count,):
        raise GeneralistError(
            f"{name} has a mask of legal actions of shape {flags.shape}; expected ({count},), one "
            "flag for each value."
        )
    if not np.isin(flags, (0, 1)).all():
        raise GeneralistError(
            f"{name} has a mask of legal actions with other values than 0 and 1: {flags.tolist()}."
        )
    if not flags.any():
        raise GeneralistError(f"{name} has a mask of legal actions that allows none of {count}.")
    return flags.astype(bool)


def checked_bits(mask: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """int8 array of `shape` of 0, 1 and `EITHER`; raises GeneralistError for anything else."""
    bits = _array(mask, name)
    if bits.shape != tuple(shape):
        raise GeneralistError(
            f"{name} has a mask of legal actions of shape {bits.shape}; expected {tuple(shape)}, "
            f"for each element 0 or 1, or {EITHER} for either."
        )
    if not np.isin(bits, (0, 1, EITHER)).all():
        raise GeneralistError(
            f"{name} has a mask of legal actions with other values than 0, 1 and {EITHER}: "
            f"{bits.tolist()}."
        )
    return bits.astype(np.int8)


def check_length(mask: Any, length: int, name: str) -> None:
    """Raise GeneralistError unless a mask holds the masks of `length` elements."""
    array = isinstance(mask, np.ndarray) and mask.ndim > 1
    if not (array or isinstance(mask, (tuple, list))) or len(mask) != length:
        raise GeneralistError(
            f"{name} has a mask of legal actions that is {_form(mask)}; expected a tuple of "
            f"{length} masks, one for each element."
        )


def check_parts(mask: Any, keys: Sequence[str | int] | range, name: str) -> None:
    """Raise GeneralistError unless a mask holds a mask, or None, under each of these keys."""
    if isinstance(keys, range):
        fits = isinstance(mask, (tuple, list)) and len(mask) == len(keys)
        expected = f"a tuple of {len(keys)} masks"
    else:
        fits = isinstance(mask, dict) and set(mask) == set(keys)
        expected = f"a dict of the masks of {', '.join(map(str, keys))}"
    if not fits:
        raise GeneralistError(
            f"{name} has a mask of legal actions that is {_form(mask)}; expected {expected}, None "
            "where all is legal."
        )


def _array(mask: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(mask)
    except ValueError:  # of parts of several lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise GeneralistError(
            f"{name} has a mask of legal actions that is {_form(mask)}; expected an array of flags."
        )
    return array


def _form(mask: Any) -> str:
    """A mask in words, such as `a tuple of 2` or `an array of shape (3,)`."""
    if isinstance(mask, dict):
        return f"a dict of {', '.join(map(str, mask)) or 'nothing'}"
    if isinstance(mask, (tuple, list)):
        return f"a {type(mask).__name__} of {len(mask)}"
    return f"an array of shape {np.shape(mask)}" if isinstance(mask, np.ndarray) else repr(mask)
