"""A curriculum by learning progress: more environments for tasks whose return improves.

Matiisen et al. 2017 (Teacher-Student Curriculum Learning), section 3.2: a task's chance follows
from how fast its score changes. Here only what improves counts, in units of its own spread, because
the returns of tasks have no common scale. Every `every` unrolls:
1. For each task, a fast and a slow moving average take the mean return since the last time. The
   spread within that time is followed too; a single episode says nothing of it.
2. Its progress is how far the fast one is ahead of the slow one, divided by the spread; at least 0.
3. Each task keeps its floor. The other environments are dealt in proportion to progress and a
   constant, so that where nothing moves, noise decides little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from generalist.training.ranks import Ranks
from generalist.training.reinforcement.crew import Outcome
from generalist.training.reinforcement.recipe import CurriculumRecipe

_FAST, _SLOW = 0.5, 0.1  # how far the averages follow, each time
_CONSTANT = 0.1  # of the spread; added to each task's progress


class Curriculum:
    """Decides how many environments each task has. All ranks call its methods together.

    Args:
        recipe: says how often, and what each task keeps.
        counts: environments of each task at first, of each rank.
        least: fewest that a task may have.
        ranks: the processes of the run.

    Attributes:
        progress: (tasks,) of the last time.
    """

    def __init__(
        self, recipe: CurriculumRecipe, counts: Sequence[int], *, least: int, ranks: Ranks
    ) -> None:
        self._recipe, self._ranks, self._counts = recipe, ranks, list(counts)
        self._floors = [min(count, max(least, math.ceil(recipe.floor * count))) for count in counts]
        self.progress = np.zeros(len(counts))
        self._unrolls = 0  # since the last time
        self._sums = np.zeros((len(counts), 3))  # count, sum and squares of returns since then
        self._averages = np.full((len(counts), 3), np.nan)  # fast, slow, variance

    def add(self, finished: Sequence[Outcome]) -> None:
        """Take the episodes that ended in an unroll."""
        self._unrolls += 1
        for each in finished:
            self._sums[each.task] += (1, each.return_, each.return_**2)

    def deal(self) -> list[int] | None:
        """How many environments each task is to have from now on; None: as many as before."""
        if self._unrolls < self._recipe.every:
            return None
        sums = np.array(self._ranks.sum(self._sums.ravel().tolist())).reshape(self._sums.shape)
        self._unrolls, self._sums = 0, np.zeros_like(self._sums)
        for number, (count, total, squares) in enumerate(sums):
            if count:
                mean = total / count
                spread = max(squares - count * mean**2, 0.0)
                self._follow(number, mean, spread / (count - 1) if count > 1 else None)
        fast, slow, variance = self._averages.T
        with np.errstate(invalid="ignore", divide="ignore"):
            ahead = (fast - slow) / np.sqrt(variance)
        self.progress = np.nan_to_num(ahead, nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
        return shares(self._counts, self._floors, self.progress)

    def _follow(self, number: int, mean: float, variance: float | None) -> None:
        """Move the averages of a task; a variance of None is not known."""
        averages = self._averages[number]
        new = np.array([mean, mean, np.nan if variance is None else variance])
        first = np.isnan(averages) & ~np.isnan(new)
        averages[first] = new[first]
        known = ~np.isnan(new)
        averages[known] += (np.array([_FAST, _SLOW, _SLOW]) * (new - averages))[known]

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` needs."""
        return {
            "unrolls": np.array([self._unrolls]),
            "sums": self._sums.copy(),
            "averages": self._averages.copy(),
            "progress": self.progress.copy(),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` returned."""
        self._unrolls = int(state["unrolls"][0])
        self._sums, self._averages = state["sums"].copy(), state["averages"].copy()
        self.progress = state["progress"].copy()


def shares(counts: Sequence[int], floors: Sequence[int], progress: np.ndarray) -> list[int]:
    """As many environments as `counts` has in all, dealt by progress above each task's floor.

    Args:
        counts: environments of each task where all progress alike.
        floors: fewest of each task.
        progress: (tasks,) float64, at least 0.
    """
    if not progress.any():
        return list(counts)
    rest = sum(counts) - sum(floors)
    weights = np.array(counts) * (progress + _CONSTANT)
    exact = rest * weights / weights.sum()
    dealt = np.floor(exact).astype(int)
    # Those that are left go where most was cut off.
    for number in np.argsort(dealt - exact, kind="stable")[: rest - int(dealt.sum())]:
        dealt[number] += 1
    return [floor + int(more) for floor, more in zip(floors, dealt, strict=True)]
