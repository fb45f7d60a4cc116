"""Outcomes in rows: fitted to the data of tasks when these are opened, read with each segment.

They are made from the stored rewards and observations, so shards of any age serve.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from generalist.shards.index import EpisodeRow
from generalist.shards.reader import TaskData
from generalist.tokenization.outcomes import RewardBins, TaskWorld
from generalist.windows.returns import Earnings, episodes_to_fit, fit_returns

_EPISODES_KEPT = 4096  # of a folder, as codes


@dataclass(frozen=True)
class Worlds:
    """How outcomes of actions are predicted.

    Attributes:
        tasks: the outcomes of tasks, by name; a task that is missing has none.
        observation: weight of the loss of a whole next observation, in parts of an action token's.
        outcome: weight of each of the losses of end, reward and return-to-go.
    """

    tasks: Mapping[str, TaskWorld]
    observation: float
    outcome: float


@dataclass(kw_only=True)
class Foreseen:
    """Outcomes of actions that are to be predicted together, in the compact form.

    Attributes:
        name: of the observations' embedder.
        index: (N,) int64, ascending flat places of the actions in the batch.
        before: (N, K) int64 ids of the observations in which they were taken.
        ids: (N, 3 + K) int64 ids of the outcomes and of the observations that followed.
        weight: (N, 3 + K) float32, factors on their losses; 0 where no observation followed.
    """

    name: str
    index: np.ndarray
    before: np.ndarray
    ids: np.ndarray
    weight: np.ndarray

    def within(self, first: int, stop: int) -> Foreseen:
        """What lies at flat places from `first` to before `stop`; places count from `first` on."""
        part = slice(*np.searchsorted(self.index, (first, stop)))
        return Foreseen(
            name=self.name,
            index=self.index[part] - first,
            before=self.before[part],
            ids=self.ids[part],
            weight=self.weight[part],
        )

    @classmethod
    def joined(cls, parts: Sequence[Foreseen]) -> Foreseen:
        """Those of neighbouring segments, all of one name."""
        arrays = {
            key: np.concatenate([getattr(each, key) for each in parts])
            for key in ("index", "before", "ids", "weight")
        }
        return cls(name=parts[0].name, **arrays)


class Outcomes:
    """The outcomes in a folder's episodes, as codes.

    Args:
        data: the folder's episodes.
        world: of their task.

    Attributes:
        codes: an episode to the (T, 3) int64 codes of its steps; cached.
    """

    def __init__(self, data: TaskData, world: TaskWorld) -> None:
        self._data, self._world = data, world
        self._earnings = Earnings(data, world.returns.discount)
        self.codes = functools.lru_cache(_EPISODES_KEPT)(self._codes)

    def _codes(self, episode: EpisodeRow) -> np.ndarray:
        sample = self._data.sample(episode.sample)
        rewards = sample.rewards[episode.first_step : episode.first_step + episode.steps]
        to_go = self._earnings.of(episode).to_go
        is_over = not self._earnings.is_truncated(episode)
        return self._world.encode(rewards.astype(np.float64), to_go, is_over=is_over)


def fit_worlds(
    folders: Sequence[TaskData], discount: float | Mapping[str, float], bins: int
) -> dict[str, TaskWorld]:
    """The outcomes of all tasks but texts, from the episodes that are trained on.

    Args:
        folders: the data of all tasks; several may hold one.
        discount: of each task, as `setting_of` reads it; 1 for a task that has none.
        bins: how many, of rewards and of returns.

    Returns:
        By task; one whose returns-to-go are all the same is missing.
    """
    found = {}
    for task, returns in fit_returns(folders, discount, bins).items():
        mine = [data for data in folders if data.task == task]
        rewards = [
            data.sample(row.sample).rewards[row.first_step : row.first_step + row.steps]
            for data, row in episodes_to_fit(mine)
        ]
        found[task] = TaskWorld(returns, RewardBins.fit(np.concatenate(rewards), bins))
    return found
