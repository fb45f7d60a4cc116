"""Returns as bins: what is still to be earned at a step, and what a task's data say of it.

The return-to-go of step t is R_t = r_t + discount R_(t+1). An episode that was truncated is taken
to go on as it ended, at the mean reward of its last 1 / (1 - discount) steps; without a discount
nothing is added.

Legend: T = steps of an episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from generalist.errors import GeneralistError

MIDDLE = 0.9
"""Share of the returns-to-go that say how far away others are still taken for real."""

LEVELS = 16
"""Groups of episodes, from the worst to the best, whose means are kept."""


@dataclass(frozen=True)
class Played:
    """What an episode earned.

    Attributes:
        total: sum of its raw rewards.
        to_go: (T,) float64 returns-to-go.
    """

    total: float
    to_go: np.ndarray


@dataclass(frozen=True)
class TaskReturns:
    """The returns of a task, as a run's data have them.

    Attributes:
        low, high: returns-to-go of the first and the last bin's outer edge; between them bins are
            equally wide.
        discount: in (0, 1].
        bins: how many.
        levels: (mean return, mean return-to-go at the first step) of groups of episodes, ascending
            in both. Their returns are the range that can be asked for.
    """

    low: float
    high: float
    discount: float
    bins: int
    levels: tuple[tuple[float, float], ...]

    @classmethod
    def fit(cls, episodes: Sequence[Played], discount: float, bins: int) -> TaskReturns | None:
        """The returns of some episodes; None where all are the same, so that nothing can be asked.

        The bounds are the extremes, but each at most as far from the middle nine tenths as these
        are wide: a far outlier does not flatten all others.
        """
        to_go = np.concatenate([each.to_go for each in episodes])
        low, high = float(to_go.min()), float(to_go.max())
        if not high - low > 1e-9 * max(1.0, abs(low), abs(high)):
            return None
        inner = np.quantile(to_go, [(1 - MIDDLE) / 2, (1 + MIDDLE) / 2])
        if (width := float(inner[1] - inner[0])) > 0:
            low = max(low, float(inner[0]) - width)
            high = min(high, float(inner[1]) + width)
        return cls(low, high, discount, bins, _levels(episodes))

    def encode(self, to_go: np.ndarray) -> np.ndarray:
        """(T,) returns-to-go to (T,) int64 bins; what lies beyond the bounds goes to the ends."""
        places = (np.asarray(to_go) - self.low) / (self.high - self.low) * self.bins
        return np.clip(places, 0, self.bins - 1).astype(np.int64)

    @property
    def centres(self) -> np.ndarray:
        """(bins,) float64, the return-to-go at the middle of each bin."""
        return self.low + (np.arange(self.bins) + 0.5) / self.bins * (self.high - self.low)

    @property
    def range(self) -> tuple[float, float]:
        """Mean return of the worst and of the best group of episodes."""
        return self.levels[0][0], self.levels[-1][0]

    def at_start(self, total: float) -> float:
        """The return-to-go at the first step of episodes that return `total`.

        Interpolated between the levels, and beyond them along the line through both ends. Where all
        episodes return the same, what is asked for besides counts in full.
        """
        totals, starts = np.array(self.levels).T
        if totals[0] <= total <= totals[-1]:
            return float(np.interp(total, totals, starts))
        slope = 1.0
        if len(totals) > 1:
            slope = (starts[-1] - starts[0]) / (totals[-1] - totals[0])
        end = 0 if total < totals[0] else -1
        return float(starts[end] + slope * (total - totals[end]))

    def after(self, to_go: float, reward: float) -> float:
        """The return-to-go one step later, within the bounds."""
        return min(max((to_go - reward) / self.discount, self.low), self.high)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskReturns:
        """Inverse of `to_dict`; raises GeneralistError where the data are none."""
        try:
            levels = tuple((float(total), float(start)) for total, start in data["levels"])
            return cls(**{**data, "levels": levels})
        except (KeyError, TypeError, ValueError) as error:
            raise GeneralistError(f"This describes no returns: {error!r}.") from None


def returns_to_go(rewards: np.ndarray, discount: float, *, truncated: bool) -> np.ndarray:
    """(T,) float64 returns-to-go of an episode with these raw rewards, (T,)."""
    from scipy.signal import lfilter  # acting needs no SciPy

    backwards = np.asarray(rewards, np.float64)[::-1]
    rest = 0.0
    if truncated and discount < 1:
        horizon = max(1, round(1 / (1 - discount)))
        rest = backwards[:horizon].mean() / (1 - discount)
    summed, _ = lfilter([1.0], [1.0, -discount], backwards, zi=[discount * rest])
    return summed[::-1]


def _levels(episodes: Sequence[Played]) -> tuple[tuple[float, float], ...]:
    """Means of groups of about as many episodes each, from the worst to the best."""
    ordered = sorted(episodes, key=lambda each: each.total)
    groups = np.array_split(np.arange(len(ordered)), min(LEVELS, len(ordered)))
    totals = [float(np.mean([ordered[i].total for i in group])) for group in groups]
    starts = [float(np.mean([ordered[i].to_go[0] for i in group])) for group in groups]
    kept: dict[float, float] = {}  # groups of the same return are one
    for total, start in zip(totals, np.maximum.accumulate(starts).tolist(), strict=True):
        kept[total] = start
    return tuple(kept.items())
