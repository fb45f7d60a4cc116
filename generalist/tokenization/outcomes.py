"""Outcomes of actions as codes: whether an episode goes on, what was earned, what will be.

An outcome has three codes: the end (0 goes on, 1 is over), the bin of the reward, and the bin of
the return-to-go after it, which is 0 where the episode is over.

Half of the bins of rewards are as frequent as each other, half are equally wide: small rewards are
told apart, and one large reward among them is not lost. A bin stands for the mean of its rewards,
so the mean of a predicted distribution is unbiased.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from generalist.errors import GeneralistError
from generalist.tokenization.returns import TaskReturns

OUTCOME = 3
"""Codes of an outcome: end, reward, return-to-go after it."""


@dataclass(frozen=True)
class RewardBins:
    """Rewards as bins.

    Attributes:
        edges: of n - 1 bins the upper edge, ascending; a reward on an edge belongs to the bin
            above it.
        means: of the n bins, the mean of their rewards.
    """

    edges: tuple[float, ...]
    means: tuple[float, ...]

    @classmethod
    def fit(cls, rewards: np.ndarray, bins: int) -> RewardBins:
        """At most `bins` bins; one for each reward where there are no more."""
        rewards = np.asarray(rewards, np.float64)
        values = np.unique(rewards)
        if len(values) > bins:
            shares = np.arange(1, bins // 2) / (bins // 2)
            low, high = values[0], values[-1]
            edges = np.unique([*np.quantile(rewards, shares), *(low + shares * (high - low))])
        else:
            edges = (values[1:] + values[:-1]) / 2
        which = np.searchsorted(edges, rewards, side="right")
        counts = np.bincount(which, minlength=len(edges) + 1)
        kept = np.flatnonzero(counts)  # bins without rewards go to their neighbours
        means = np.bincount(which, rewards, len(counts))[kept] / counts[kept]
        return cls(tuple(edges[kept[1:] - 1].tolist()), tuple(means.tolist()))

    def encode(self, rewards: np.ndarray) -> np.ndarray:
        """(T,) rewards to (T,) int64 bins."""
        return np.searchsorted(np.array(self.edges), np.asarray(rewards, np.float64), side="right")

    @cached_property
    def centres(self) -> np.ndarray:
        """(n,) float64, the reward that each bin stands for."""
        return np.array(self.means)


@dataclass(frozen=True)
class TaskWorld:
    """What a run's data say of the outcomes of a task.

    Attributes:
        returns: its returns-to-go.
        rewards: its rewards.
    """

    returns: TaskReturns
    rewards: RewardBins

    def encode(self, rewards: np.ndarray, to_go: np.ndarray, *, is_over: bool) -> np.ndarray:
        """Codes of the outcomes of an episode.

        Args:
            rewards: (T,) raw rewards.
            to_go: (T,) returns-to-go.
            is_over: whether the last step ended it, and did not merely cut it.

        Returns:
            (T, 3) int64.
        """
        after = (np.asarray(to_go, np.float64) - rewards) / self.returns.discount
        over = np.zeros(len(rewards), np.int64)
        if is_over:
            over[-1], after[-1] = 1, 0.0
        return np.stack([over, self.rewards.encode(rewards), self.returns.encode(after)], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        rewards = {"edges": list(self.rewards.edges), "means": list(self.rewards.means)}
        return {"returns": self.returns.to_dict(), "rewards": rewards}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskWorld:
        """Inverse of `to_dict`; raises GeneralistError where the data are none."""
        try:
            rewards = RewardBins(**{k: tuple(map(float, v)) for k, v in data["rewards"].items()})
            return cls(TaskReturns.from_dict(data["returns"]), rewards)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GeneralistError(f"This describes no outcomes: {error!r}.") from None
