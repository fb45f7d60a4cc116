"""Which episodes are trained on: those near enough to the expert, and no more than so many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from generalist.envs import get_task
from generalist.envs.registry import Task
from generalist.errors import GeneralistError
from generalist.settings import setting_of
from generalist.shards.reader import TaskData
from generalist.shards.strangers import names_new_code


@dataclass(frozen=True)
class Selection:
    """Settings by task or for all; None leaves everything in.

    Attributes:
        min_expert_share: keep an episode whose normalised score reaches this (0 random, 1 expert);
            Gato kept those of at least 80% of the expert's return.
        episodes: keep this many of a task's, the first ones, folder after folder.
        best_share: keep this share of a task's episodes, those with the best scores, at least one.
    """

    min_expert_share: float | Mapping[str, float] | None = None
    episodes: int | Mapping[str, int] | None = None
    best_share: float | Mapping[str, float] | None = None

    def of(self, folders: Sequence[TaskData]) -> list[TaskData]:
        """The episodes that are kept of all folders of one task.

        Args:
            folders: the data of the task's folders.

        Returns:
            The data of each folder, perhaps without any episode.

        Raises:
            GeneralistError: no folder keeps any; the message says what was asked and the best.
        """
        task = folders[0].task
        share = setting_of(self.min_expert_share, task)
        most = setting_of(self.episodes, task)
        if share is None or folders[0].layout.is_document:
            kept = [np.arange(len(data)) for data in folders]
        else:
            kept = _good_enough(folders, share)
        best = setting_of(self.best_share, task)
        if best is not None and not folders[0].layout.is_document:
            kept = _best(folders, kept, best)
        if most is not None:
            before = np.cumsum([0] + [len(numbers) for numbers in kept]).tolist()
            kept = [
                numbers[: max(0, most - first)]
                for numbers, first in zip(kept, before[:-1], strict=True)
            ]
        return [
            data if len(numbers) == len(data) else data.select(numbers)
            for data, numbers in zip(folders, kept, strict=True)
        ]


def _good_enough(folders: Sequence[TaskData], share: float) -> list[np.ndarray]:
    """Numbers of the episodes whose score reaches this share of the way from random to expert."""
    task, scores = folders[0].task, [_scores(data) for data in folders]
    random, expert = _random_and_expert(folders, np.concatenate(scores))
    least = random + share * (expert - random)
    kept = [np.flatnonzero(own >= least - 1e-9 * abs(least)) for own in scores]
    if not any(len(numbers) for numbers in kept):
        where = ", ".join(str(data.folder) for data in folders)
        raise GeneralistError(
            f"{where}: of {sum(map(len, scores))} episodes none reaches {share:g} of the expert's "
            f"score, which would be {least:.6g}; the best has {np.concatenate(scores).max():.6g}. "
            f"Give data.min_expert_share a lower value for {task}."
        )
    return kept


def _best(
    folders: Sequence[TaskData], kept: Sequence[np.ndarray], share: float
) -> list[np.ndarray]:
    """Of the kept episodes of each folder, those among the task's best.

    Of equal scores, such as successes, those that return more; of equal returns the first.
    """
    pairs = list(zip(folders, kept, strict=True))
    scores = np.concatenate([_scores(data)[numbers] for data, numbers in pairs])
    returns = np.concatenate([data.episodes["return"][numbers] for data, numbers in pairs])
    count = max(1, round(share * len(scores)))
    is_best = np.zeros(len(scores), bool)
    is_best[np.lexsort((-returns, -scores))[:count]] = True
    parts = np.split(is_best, np.cumsum([len(numbers) for numbers in kept])[:-1])
    return [numbers[part] for numbers, part in zip(kept, parts, strict=True)]


def _scores(data: TaskData) -> np.ndarray:
    """(episodes,) what each episode scores in its task's own metric."""
    returns = data.episodes["return"]
    if (task := _registered(data)) is not None and task.metric == "success":
        # As the environment said, or by the return where it says nothing.
        said = (data.record(i).get("success", returns[i] > 0) for i in range(len(data)))
        return np.fromiter(said, float, len(data))
    return returns


def _random_and_expert(folders: Sequence[TaskData], scores: np.ndarray) -> tuple[float, float]:
    """Scores of random and expert that a task's episodes are compared with.

    They are the registry's where all folders hold whole episodes of the task as registered, else
    the worst and the best in the data.
    """
    task = _registered(folders[0])
    changed = any(
        data.header.collection.get(key) for data in folders for key in ("max_steps", "options")
    )
    if task is None or task.references is None or changed:
        return float(scores.min()), float(scores.max())
    random, expert = task.references
    return random.mean, expert.mean


def _registered(data: TaskData) -> Task | None:
    """What the registry knows of a task; None for data of what cannot be made, or be imported."""
    if names_new_code(data.task):
        return None
    try:
        return get_task(data.task)
    except GeneralistError:
        return None
