"""Returns in rows: fitted to the data of tasks when these are opened, and read with each segment.

They are made from the stored rewards, so shards of any age serve.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from generalist.settings import setting_of
from generalist.shards.index import EpisodeRow
from generalist.shards.reader import TaskData
from generalist.tokenization.returns import Played, TaskReturns, returns_to_go

_EPISODES_FITTED = 4096  # of a task, evenly from its folders
_EPISODES_KEPT = 4096  # of a folder, as bins


@dataclass(frozen=True)
class Returns:
    """How returns appear in rows.

    Attributes:
        tasks: the returns of tasks, by name; a task that is missing has none.
        show: share of segments that show the return-to-go at every step.
        weight: of a value's loss, in parts of an action token's.
    """

    tasks: Mapping[str, TaskReturns]
    show: float
    weight: float


class Earnings:
    """What the episodes of a folder earned.

    Args:
        data: the folder's episodes.
        discount: of their returns-to-go.
    """

    def __init__(self, data: TaskData, discount: float) -> None:
        self._data, self._discount = data, discount
        self._truncated: dict[int, frozenset[int]] = {}  # of each block, by their first steps

    def of(self, episode: EpisodeRow) -> Played:
        """What an episode earned."""
        sample = self._data.sample(episode.sample)
        rewards = sample.rewards[episode.first_step : episode.first_step + episode.steps]
        to_go = returns_to_go(rewards, self._discount, truncated=self.is_truncated(episode))
        return Played(float(rewards.astype(np.float64).sum()), to_go)

    def is_truncated(self, episode: EpisodeRow) -> bool:
        """Whether an episode was cut, and might have gone on."""
        return episode.first_step in self._truncated_in(episode.sample)

    def _truncated_in(self, number: int) -> frozenset[int]:
        """First steps of the truncated episodes of a block."""
        if number not in self._truncated:
            first, found = 0, set()
            for record in self._data.sample(number).read_records():
                if record.get("truncated") and not record.get("terminated"):
                    found.add(first)
                first += record["steps"]
            self._truncated[number] = frozenset(found)
        return self._truncated[number]


class ReturnsToGo:
    """The returns-to-go of a folder's episodes, as bins.

    Args:
        data: the folder's episodes.
        returns: of their task.

    Attributes:
        bins: an episode to the (T,) uint16 bins of its steps; cached.
    """

    def __init__(self, data: TaskData, returns: TaskReturns) -> None:
        self._earnings, self._returns = Earnings(data, returns.discount), returns
        self.bins = functools.lru_cache(_EPISODES_KEPT)(self._bins)

    def _bins(self, episode: EpisodeRow) -> np.ndarray:
        return self._returns.encode(self._earnings.of(episode).to_go).astype(np.uint16)


def fit_returns(
    folders: Sequence[TaskData], discount: float | Mapping[str, float], bins: int
) -> dict[str, TaskReturns]:
    """The returns of all tasks but texts, from the episodes that are trained on.

    Args:
        folders: the data of all tasks; several may hold one.
        discount: of each task, as `setting_of` reads it; 1 for a task that has none.
        bins: how many bins.

    Returns:
        By task; one whose returns-to-go are all the same is missing.
    """
    by_task: dict[str, list[TaskData]] = {}
    for data in folders:
        if not data.layout.is_document:
            by_task.setdefault(data.task, []).append(data)
    found: dict[str, TaskReturns] = {}
    for task, mine in by_task.items():
        own = setting_of(discount, task)
        factor = 1.0 if own is None else own
        fitted = TaskReturns.fit(_played(mine, factor), factor, bins)
        if fitted is not None:
            found[task] = fitted
    return found


def _played(folders: Sequence[TaskData], discount: float) -> list[Played]:
    """What episodes of a task earned: all, or some thousand."""
    earnings = {id(data): Earnings(data, discount) for data in folders}
    return [earnings[id(data)].of(row) for data, row in episodes_to_fit(folders)]


def episodes_to_fit(folders: Sequence[TaskData]) -> Iterator[tuple[TaskData, EpisodeRow]]:
    """All episodes of a task, or some thousand, evenly from its folders."""
    stride = -(-sum(len(data) for data in folders) // _EPISODES_FITTED)
    for data in folders:
        for number in range(0, len(data), stride):
            yield data, data.row(number)
