"""Spaces of recordings that come without: dtype and shape, and bounds where there are any.

Legend: T = steps of a recording.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from generalist.envs.frames import frame_axes
from generalist.episode import Tree
from generalist.errors import GeneralistError
from generalist.importing.source import EncodedFrames, Recording
from generalist.tokenization.continuous import M


def infer_spaces(recordings: Iterable[tuple[int, Recording]]) -> tuple[spaces.Space, spaces.Space]:
    """Observation and action space that hold all of the recordings, given with their numbers.

    Integers get the range that occurs, from 0 where none is negative. Floats have no bounds, but an
    element that leaves what the mu-law can tell apart (+-256) gets those that occur. Raises
    GeneralistError that names the recording whose shapes are others than those before.
    """
    seen: tuple[dict[str, _Leaf], dict[str, _Leaf]] | None = None
    for number, recording in recordings:
        here = _leaves(recording.observations), _leaves(recording.actions)
        if seen is None:
            seen = here
            continue
        for role, before, now in zip(("observation", "action"), seen, here, strict=True):
            if before.keys() != now.keys():
                raise GeneralistError(
                    f"episode {number}: {role} has the fields {', '.join(now)}, "
                    f"those before it {', '.join(before)}."
                )
            for key, leaf in now.items():
                where = f"{role}/{key}" if key else role
                before[key].widen(leaf, f"episode {number}: {where}")
    if seen is None:
        raise GeneralistError("there is no episode, so nothing says what its spaces are.")
    observation, action = (_space(leaves) for leaves in seen)
    return observation, action


def leaf_space(
    shape: tuple[int, ...],
    dtype: np.dtype,
    low: np.ndarray,
    high: np.ndarray,
    pictures: bool = False,
) -> spaces.Space:
    """The space of one field; low, high: (*shape) bounds, infinite where not known."""
    if pictures or (dtype == np.uint8 and frame_axes(shape) is not None):
        return spaces.Box(0, 255, shape, np.uint8)
    if dtype == np.bool_:
        return spaces.MultiBinary(shape) if shape else spaces.Discrete(2)
    if np.issubdtype(dtype, np.floating):
        return spaces.Box(low.astype(dtype), high.astype(dtype), shape, dtype.type)
    low = np.minimum(low, 0)
    if shape:
        return spaces.Box(low.astype(dtype), high.astype(dtype), shape, dtype.type)
    return spaces.Discrete(int(high) - int(low) + 1, start=int(low))


@dataclass
class _Leaf:
    """One field: shape and dtype of a step, and the (*shape) extremes that occur."""

    shape: tuple[int, ...]
    dtype: np.dtype
    low: np.ndarray
    high: np.ndarray
    pictures: bool = False

    def widen(self, other: _Leaf, where: str) -> None:
        if other.shape != self.shape or other.dtype != self.dtype:
            raise GeneralistError(
                f"{where} has shape {other.shape} and dtype {other.dtype}, "
                f"in the episodes before it {self.shape} and {self.dtype}."
            )
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)

    def space(self) -> spaces.Space:
        low, high = self.low, self.high
        if not np.issubdtype(self.dtype, np.floating):
            return leaf_space(self.shape, self.dtype, low, high, self.pictures)
        wide = np.maximum(np.abs(low), np.abs(high)) > M
        # 0 belongs to the range, so that an element which never changes has one too.
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        return leaf_space(
            self.shape, self.dtype, np.where(wide, low, -np.inf), np.where(wide, high, np.inf)
        )


def _leaves(tree: Tree) -> dict[str, _Leaf]:
    """The fields by name; a single one is called ""."""
    if not isinstance(tree, dict):
        return {"": _leaf(tree)}
    found = {}
    for key in sorted(tree):
        for name, leaf in _leaves(tree[key]).items():
            found[f"{key}/{name}" if name else key] = leaf
    return found


def _leaf(values: Any) -> _Leaf:
    if isinstance(values, EncodedFrames):
        return _Leaf(values.shape, np.dtype(np.uint8), np.array(0), np.array(255), pictures=True)
    values = np.asarray(values)
    # A value that is not finite is refused when its episode is encoded, by name; not here.
    if np.issubdtype(values.dtype, np.floating):
        finite = np.where(np.isfinite(values), values, 0)
        return _Leaf(values.shape[1:], values.dtype, finite.min(axis=0), finite.max(axis=0))
    return _Leaf(values.shape[1:], values.dtype, values.min(axis=0), values.max(axis=0))


def _space(leaves: dict[str, _Leaf]) -> spaces.Space:
    if set(leaves) == {""}:
        return leaves[""].space()
    children: dict[str, dict[str, _Leaf]] = {}
    for name, leaf in leaves.items():
        key, _, rest = name.partition("/")
        children.setdefault(key, {})[rest] = leaf
    return spaces.Dict({key: _space(below) for key, below in children.items()})
