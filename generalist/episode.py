"""Episode: what an expert, an agent or an importer produces, in numpy, before any token.

Legend: T = steps of the episode. A tree is an array or a nested dict or tuple of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from generalist.errors import GeneralistError

Tree = Any  # np.ndarray | dict[str, "Tree"] | tuple["Tree", ...]
Path = tuple[str | int, ...]  # a string or `IntegerKey` for each dict, an integer for each tuple


class IntegerKey(int):
    """A key of a dict that is an integer, as a part of a path; other integers index tuples."""


def is_index(part: str | int) -> bool:
    """Whether a part of a path is the index of a tuple, not a key of a dict."""
    return isinstance(part, int) and not isinstance(part, IntegerKey)


def sorted_keys(tree: Mapping[Any, Any]) -> list[Any]:
    """Keys of a dict in the order of its leaves: integers first, then strings, each sorted."""
    return sorted(tree, key=lambda key: (isinstance(key, str), key))


def path_name(path: Path) -> str:
    """Readable form of a path, such as `arm/0/angle`; strings that could mislead are quoted."""
    return "/".join(repr(part) if _misleads(part) else str(part) for part in path)


def _misleads(part: str | int) -> bool:
    """Whether a key looks like another one, like several or like none: `"0"`, `"a/b"`, `""`."""
    if isinstance(part, int):
        return False
    return not part or part.lstrip("-").isdigit() or any(sign in part for sign in "/'\"")


def tree_leaves(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, np.ndarray]]:
    """Yield (path, array) for every leaf: dict keys in the order of `sorted_keys`."""
    if isinstance(tree, dict):
        for key in sorted_keys(tree):
            part = IntegerKey(key) if isinstance(key, int) else key
            yield from tree_leaves(tree[key], (*path, part))
    elif isinstance(tree, tuple):
        for index, child in enumerate(tree):
            yield from tree_leaves(child, (*path, index))
    else:
        yield path, np.asarray(tree)


def tree_map(function: Callable[[np.ndarray], Any], tree: Tree) -> Tree:
    """Apply `function` to every leaf and keep the structure."""
    if isinstance(tree, dict):
        return {key: tree_map(function, tree[key]) for key in sorted_keys(tree)}
    if isinstance(tree, tuple):
        return tuple(tree_map(function, child) for child in tree)
    return function(tree)


def tree_get(tree: Tree, path: Path) -> np.ndarray:
    """The leaf at `path`; raises KeyError, IndexError or TypeError where there is none."""
    for key in path:
        tree = tree[key]
    return np.asarray(tree)


def tree_from_leaves(leaves: list[tuple[Path, Any]]) -> Tree:
    """Inverse of `tree_leaves`: strings and `IntegerKey`s make a dict, other integers a tuple."""
    if len(leaves) == 1 and not leaves[0][0]:
        return leaves[0][1]
    children: dict[str | int, list[tuple[Path, Any]]] = {}
    for path, leaf in leaves:
        children.setdefault(path[0], []).append((path[1:], leaf))
    built = {key: tree_from_leaves(below) for key, below in children.items()}
    if all(map(is_index, built)):
        return tuple(built[key] for key in sorted(built))
    return {int(key) if isinstance(key, int) else key: below for key, below in built.items()}


def tree_stack(trees: list[Tree]) -> Tree:
    """Stack equal structures along a new leading axis: T observations make one (T, ...) tree."""
    first = trees[0]
    if isinstance(first, dict):
        return {key: tree_stack([tree[key] for tree in trees]) for key in sorted_keys(first)}
    if isinstance(first, tuple):
        return tuple(tree_stack([tree[i] for tree in trees]) for i in range(len(first)))
    return np.stack([np.asarray(tree) for tree in trees])


def success_so_far(before: bool | None, info: dict[str, Any]) -> bool | None:
    """Success after a step with this `info`: once is enough; None while nothing was said of it."""
    return before if "success" not in info else bool(before or info["success"])


@dataclass
class Episode:
    """One episode of one task.

    Attributes:
        task: its name, `family/Name`.
        observations: tree of (T, ...), observation t is what was seen before action t.
        actions: tree of (T, ...), the actions that were executed.
        rewards: (T,) float32, raw (neither clipped nor scaled).
        terminated: whether the task ended it.
        truncated: whether a limit cut it.
        labels: tree like `actions`, the expert's own action at each step; None where nobody was
            asked.
        instruction: what to do, in words; None where the task has no such words.
        info: JSON-able facts (seed, expert, noise, ...).

    Raises:
        GeneralistError: rewards are not one number a step, or a leaf has not T of them.
    """

    task: str
    observations: Tree
    actions: Tree
    rewards: np.ndarray
    terminated: bool
    truncated: bool
    labels: Tree | None = None
    instruction: str | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rewards = np.asarray(self.rewards, dtype=np.float32)
        if self.rewards.ndim != 1:
            raise GeneralistError(
                f"{self.task}: rewards must be one number a step, got shape {self.rewards.shape}."
            )
        for name in ("observations", "actions", "labels"):
            tree = getattr(self, name)
            if tree is None:
                continue
            for path, leaf in tree_leaves(tree):
                if leaf.ndim == 0 or len(leaf) != self.steps:
                    where = path_name((name, *path))
                    raise GeneralistError(
                        f"{self.task}: {where} has shape {leaf.shape}, "
                        f"but there are {self.steps} rewards; the first axis must be the step."
                    )

    @property
    def steps(self) -> int:
        """T, the number of actions taken."""
        return len(self.rewards)

    @property
    def return_(self) -> float:
        """Undiscounted sum of the raw rewards."""
        return float(self.rewards.astype(np.float64).sum())

    @property
    def success(self) -> bool | None:
        """Whether the task was solved, as the environment said; None where it says nothing."""
        return self.info.get("success")
