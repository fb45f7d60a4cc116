"""Soft labels: a distribution over the ids of an action in place of one label.

A row says how much one id weighs at one step; the weights of a step are normalised when they are
read, so counts, such as the visits of a search, stay as they are. A step without rows has its one
label. An action has to be one token that names a choice: not several tokens, no text, no bin.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from generalist.tokenization.layout import Layout
from generalist.vocabulary import Vocabulary


def soft_label_dtype(ids: np.dtype) -> np.dtype:
    """The type of a row; `ids` is that of tokens. Rows are sorted by step, then by id."""
    return np.dtype([("step", np.uint32), ("id", ids), ("weight", np.float32)])


def soft_label_rows(ids: np.ndarray, weights: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The rows of an episode of T steps.

    Args:
        ids: (T, W) ids of the vocabulary.
        weights: (T, W) what each weighs, not negative; an id that weighs 0 gets no row, a step
            that has nothing but zeros its one label.
        vocabulary: of the ids.
    """
    step, place = np.nonzero(weights)
    rows = np.empty(len(step), soft_label_dtype(vocabulary.dtype))
    rows["step"], rows["id"], rows["weight"] = step, ids[step, place], weights[step, place]
    return rows[np.lexsort((rows["id"], rows["step"]))]


def problem_of(rows: np.ndarray, steps: int, layout: Layout) -> str | None:
    """What is wrong with soft labels of `steps` steps, in words; None where nothing is."""
    if len(layout.legal) != 1 or layout.is_document or layout.is_written:
        return "only actions of one token have soft labels, and these have several or are text"
    if layout.positions.bins[layout.positions.chosen][0] >= 0:
        return "an action that is the bin of a number has no soft labels"
    if not len(rows):
        return None
    first, stop = layout.legal[0]
    step, ids = rows["step"].astype(np.int64), rows["id"].astype(np.int64)
    if step[-1] >= steps or not (np.diff(step * 2**32 + ids) > 0).all():
        return f"the soft labels are not sorted by step and id, or beyond the {steps} steps"
    if ids.min() < first or ids.max() >= stop:
        return "the soft labels hold ids that are no actions"
    weights = rows["weight"]
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        return "a soft label weighs nothing, or its weight is no number"
    return None


class SoftLabels:
    """The soft labels of a block of episodes, found by step.

    Args:
        rows: sorted, as they are stored; they may be mapped.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    @property
    def steps(self) -> int:
        """How many steps have one."""
        return len(np.unique(self._rows["step"]))

    def of(self, first: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The distributions of neighbouring steps of the block.

        Args:
            first: the first of the steps.
            steps: how many.

        Returns:
            (N,) int64 steps counted from `first`, ascending; (N,) int64 ids; and (N,) float32
            probabilities, which sum to 1 at each step that occurs.
        """
        column = self._rows["step"]
        # Not searchsorted, which would copy the whole column of a packed row.
        rows = self._rows[bisect_left(column, first) : bisect_left(column, first + steps)]
        step = rows["step"].astype(np.int64) - first
        total = np.bincount(step, weights=rows["weight"], minlength=steps)
        mass = (rows["weight"] / total[step]).astype(np.float32)
        return step, rows["id"].astype(np.int64), mass
