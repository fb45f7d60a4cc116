"""Soft targets in rows: distributions over ids that are to be predicted in place of one label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(kw_only=True)
class Soft:
    """The distributions in a batch; an entry says how likely one id is at one place.

    Attributes:
        index: (N,) int64, ascending flat places of targets in the batch.
        ids: (N,) int64 of the vocabulary.
        mass: (N,) float32 probabilities, which sum to 1 at each place.
    """

    index: np.ndarray
    ids: np.ndarray
    mass: np.ndarray

    def within(self, first: int, stop: int) -> Soft:
        """What lies at flat places from `first` to before `stop`; places count from `first` on."""
        part = slice(*np.searchsorted(self.index, (first, stop)))
        return Soft(index=self.index[part] - first, ids=self.ids[part], mass=self.mass[part])

    @classmethod
    def joined(cls, parts: Sequence[Soft]) -> Soft | None:
        """Those of neighbouring segments; None where no segment has any."""
        if not parts:
            return None
        arrays = {
            name: np.concatenate([getattr(each, name) for each in parts])
            for name in ("index", "ids", "mass")
        }
        return cls(**arrays)

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One row for each of the S places that have a distribution.

        Returns:
            (S,) int64 places; (S, W) int64 ids, of which the first of a row fills what is left; and
            (S, W) float32 probabilities, 0 there.
        """
        places, row = np.unique(self.index, return_inverse=True)
        counts = np.bincount(row, minlength=len(places))
        starts = np.cumsum(counts) - counts
        shape = len(places), int(counts.max(initial=0))
        ids = np.repeat(self.ids[starts], shape[1]).reshape(shape)
        mass = np.zeros(shape, np.float32)
        column = np.arange(len(row)) - starts[row]
        ids[row, column], mass[row, column] = self.ids, self.mass
        return places, ids, mass
