"""Whether predicted values are calibrated: groups of steps, what was predicted and what followed.

A reliability plot (Murphy and Winkler 1977, there of probabilities of rain): predictions are sorted
into groups of equal size, and the mean of each group is compared with the mean of what came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Group:
    """Steps of similar values.

    Attributes:
        steps: how many.
        episodes: of how many episodes they are.
        value: their mean value.
        followed: the mean return-to-go that followed.
        interval: 95% interval of `followed`; None where all steps are of one episode.
    """

    steps: int
    episodes: int
    value: float
    followed: float
    interval: tuple[float, float] | None


def reliability(
    values: np.ndarray, followed: np.ndarray, episodes: np.ndarray, groups: int
) -> list[Group]:
    """Groups of steps of equal size, from the lowest values to the highest.

    Args:
        values: (n,) predicted returns-to-go.
        followed: (n,) returns-to-go that followed.
        episodes: (n,) int, the episode of each step.
        groups: how many; fewer where there are fewer steps.
    """
    order = np.argsort(values, kind="stable")
    parts = np.array_split(order, min(groups, len(order)))
    return [_group(values[part], followed[part], episodes[part]) for part in parts if len(part)]


def _group(values: np.ndarray, followed: np.ndarray, episodes: np.ndarray) -> Group:
    mean = float(followed.mean())
    names, owner = np.unique(episodes, return_inverse=True)
    interval = None
    if len(names) > 1:
        # Steps of an episode go together: the mean is a ratio of sums over episodes, whose variance
        # is that of the sums of deviations (Cochran 1977, Sampling Techniques, section 2.11).
        deviations = np.bincount(owner, weights=followed - mean)
        count = len(names)
        error = np.sqrt(count / (count - 1) * (deviations**2).sum()) / len(followed)
        half = float(stats.t.ppf(0.975, count - 1) * error)
        interval = (mean - half, mean + half)
    return Group(len(values), len(names), float(values.mean()), mean, interval)
