"""Spaces of recordings that come without: dtype and shape, and bounds where there are any.

Legend: T = steps of a recording.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from generalist.envs.frames import frame_axes
from generalist.episode import Path, Tree
from generalist.errors import GeneralistError
from generalist.importing.source import Document, EncodedFrames, Load, Recording
from generalist.tokenization.continuous import M, finite
from generalist.tokenization.use import CLIPPED_SHARE


def infer_spaces(
    loads: Iterable[tuple[int, Load]], *, skip_bad: bool = False
) -> tuple[spaces.Space, spaces.Space]:
    """Observation and action space that hold all of the recordings, given with their numbers.

    Integers get the range that occurs, from 0 where none is negative. Floats have no bounds, but an
    element that often leaves what the mu-law can tell apart (+-256) gets those that occur. One that
    does so now and then keeps the mu-law, so that a single outlier does not take the bins of all
    other values.

    skip_bad: leave out recordings that cannot be read, and those of other shapes than most have.

    Raises GeneralistError that names the recording which cannot be read, or whose shapes are others
    than those before.
    """
    groups: list[_Group] = []
    failed: list[GeneralistError] = []
    for number, load in loads:
        try:
            _sort_in(groups, _seen(load()), alone=not skip_bad)
        except GeneralistError as error:
            failed.append(load.located(number, error))
            if not skip_bad:
                raise failed[0] from error
    if not groups:
        reason = f"; {failed[0]}" if failed else "."
        raise GeneralistError(
            f"no episode can be read, so nothing says what its spaces are{reason}"
        )
    most = max(groups, key=lambda group: group.recordings)  # the first of equals
    return _space(most.observation), _space(most.action)


@dataclass
class _Group:
    """Recordings of the same fields, shapes and dtypes: their leaves, and how many there are."""

    observation: dict[Path, _Leaf]
    action: dict[Path, _Leaf]
    recordings: int = 1

    def join(self, other: _Group) -> None:
        """Widen the leaves; GeneralistError, before anything changes, where they differ."""
        sides = (("observation", self.observation, other.observation),
                 ("action", self.action, other.action))  # fmt: skip
        for role, before, now in sides:
            if before.keys() != now.keys():
                raise GeneralistError(
                    f"{role} has the fields {', '.join(map(_named, now))}, "
                    f"those before it {', '.join(map(_named, before))}."
                )
            for path, leaf in now.items():
                before[path].check_same(leaf, _named((role, *path)))
        for _, before, now in sides:
            for path, leaf in now.items():
                before[path].widen(leaf)
        self.recordings += other.recordings


def _seen(recording: Recording | Document) -> _Group:
    assert isinstance(recording, Recording)
    recording.check_rewards()
    return _Group(
        _leaves(recording.observations, ("observation",)), _leaves(recording.actions, ("action",))
    )


def _sort_in(groups: list[_Group], found: _Group, *, alone: bool) -> None:
    """Into the group of its like, or one of its own; `alone`: there may be one group only."""
    for group in groups:
        try:
            group.join(found)
            return
        except GeneralistError:
            if alone:
                raise
    groups.append(found)


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
    """One field: shape and dtype of a step, and the (*shape) extremes that occur.

    Attributes:
        steps: how many there were.
        beyond: (*shape) how many of them lay beyond the mu-law.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    low: np.ndarray
    high: np.ndarray
    steps: int = 0
    beyond: np.ndarray = field(default_factory=lambda: np.array(0))
    pictures: bool = False

    def check_same(self, other: _Leaf, where: str) -> None:
        if other.shape != self.shape or other.dtype != self.dtype:
            raise GeneralistError(
                f"{where} has shape {other.shape} and dtype {other.dtype}, "
                f"in the episodes before it {self.shape} and {self.dtype}."
            )

    def widen(self, other: _Leaf) -> None:
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)
        self.steps, self.beyond = self.steps + other.steps, self.beyond + other.beyond

    def space(self) -> spaces.Space:
        low, high = self.low, self.high
        if not np.issubdtype(self.dtype, np.floating):
            return leaf_space(self.shape, self.dtype, low, high, self.pictures)
        wide = self.beyond > CLIPPED_SHARE * self.steps
        # 0 belongs to the range, so that an element which never changes has one too.
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        return leaf_space(
            self.shape, self.dtype, np.where(wide, low, -np.inf), np.where(wide, high, np.inf)
        )


def _named(path: Path) -> str:
    return "/".join(map(str, path))


def _leaves(tree: Tree, where: Path) -> dict[Path, _Leaf]:
    """The fields by their paths; a single one has the empty path."""
    if not isinstance(tree, dict):
        return {(): _leaf(tree, _named(where))}
    found: dict[Path, _Leaf] = {}
    for key in sorted(tree):
        for path, leaf in _leaves(tree[key], (*where, key)).items():
            found[(key, *path)] = leaf
    return found


def _leaf(values: Any, where: str) -> _Leaf:
    if isinstance(values, EncodedFrames):
        return _Leaf(values.shape, np.dtype(np.uint8), np.array(0), np.array(255), pictures=True)
    values, beyond = np.asarray(values), np.array(0)
    if np.issubdtype(values.dtype, np.floating):
        try:
            finite(values.reshape(len(values), -1))
        except ValueError as error:
            raise GeneralistError(f"{where} {error}.") from error
        beyond = (np.abs(values) > M).sum(axis=0)
    extremes = values.min(axis=0), values.max(axis=0)
    return _Leaf(values.shape[1:], values.dtype, *extremes, len(values), beyond)


def _space(leaves: dict[Path, _Leaf]) -> spaces.Space:
    if set(leaves) == {()}:
        return leaves[()].space()
    children: dict[Any, dict[Path, _Leaf]] = {}
    for path, leaf in leaves.items():
        children.setdefault(path[0], {})[path[1:]] = leaf
    return spaces.Dict({key: _space(below) for key, below in children.items()})
