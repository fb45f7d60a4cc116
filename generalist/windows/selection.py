"""Which episodes are trained on: those near enough to the expert, and no more than so many."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from generalist.envs import get_task
from generalist.errors import GeneralistError
from generalist.settings import setting_of
from generalist.shards.reader import TaskData
from generalist.shards.strangers import names_new_code


@dataclass(frozen=True)
class Selection:
    """Settings by task or for all; None leaves everything in.

    min_expert_share: keep an episode whose normalised score reaches this (0 random, 1 expert);
        Gato kept those of at least 80% of the expert's return.
    episodes: keep the first so many of those.
    """

    min_expert_share: float | Mapping[str, float] | None = None
    episodes: int | Mapping[str, int] | None = None

    def of(self, data: TaskData) -> TaskData:
        """The data with the episodes that are kept; GeneralistError where none is."""
        share = setting_of(self.min_expert_share, data.task)
        most = setting_of(self.episodes, data.task)
        if data.layout.is_document:
            share = None
        if share is None and (most is None or most >= len(data)):
            return data
        kept = np.arange(len(data)) if share is None else _good_enough(data, share)
        return data.select(kept[:most])


def _good_enough(data: TaskData, share: float) -> np.ndarray:
    """Numbers of the episodes whose score reaches this share of the way from random to expert."""
    scores, random, expert = _scores(data)
    least = random + share * (expert - random)
    kept = np.flatnonzero(scores >= least - 1e-9 * abs(least))
    if not len(kept):
        raise GeneralistError(
            f"{data.folder}: of {len(data)} episodes none reaches {share:g} of the expert's "
            f"score, which would be {least:.6g}; the best has {scores.max():.6g}. Give "
            f"data.min_expert_share a lower value for {data.task}."
        )
    return kept


def _scores(data: TaskData) -> tuple[np.ndarray, float, float]:
    """(episodes,) scores, and those of random and expert to compare them with.

    These are the registry's where whole episodes of the task as registered were collected, else
    the worst and the best in the data.
    """
    returns = data.episodes["return"]
    task = None
    if not names_new_code(data.task):
        with contextlib.suppress(GeneralistError):  # data of what cannot be made here
            task = get_task(data.task)
    if task is not None and task.metric == "success":
        # As the environment said, or by the return where it says nothing.
        said = (data.record(i).get("success", returns[i] > 0) for i in range(len(data)))
        returns = np.fromiter(said, float, len(data))
    changed = data.header.collection.get("max_steps") or data.header.collection.get("options")
    if task is None or task.random_score is None or task.expert_score is None or changed:
        return returns, float(returns.min()), float(returns.max())
    return returns, task.random_score.mean, task.expert_score.mean
