"""Sources: where the forward passes of each step come from, demonstrations or unrolls.

A run is an objective, a source and a list of rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from torch import Tensor

from generalist.errors import GeneralistError
from generalist.training.ahead import one_ahead, several_ahead
from generalist.training.data import TrainingData, task_weights
from generalist.training.gradients import Losses
from generalist.training.log import TrainingLog
from generalist.training.passes import ForwardPass, Pass
from generalist.training.recipe import Recipe
from generalist.training.tensors import to_tensors


@dataclass(frozen=True)
class Share:
    """This process's part of a step.

    Attributes:
        rank: its number.
        ranks: how many there are.
        cores: how many forward passes run side by side in it.
    """

    rank: int
    ranks: int
    cores: int


class Source(Protocol):
    """Where the forward passes of each step come from. All ranks call its methods together.

    Attributes:
        data: tasks, processor and form of the run, with its demonstrations if any.
    """

    data: TrainingData

    def batches(self, step: int, share: Share) -> AbstractContextManager[Iterator[Sequence[Pass]]]:
        """An endless iterator over this rank's passes of step `step`, the next, and so on.

        A batch is a function of the step, and of the weights where the source acts with them. One
        that was taken and not trained on is given again.
        """

    def take(self, data: TrainingData) -> None:
        """Use these demonstrations from now on."""

    def trained(self, outcomes: Losses, log: TrainingLog) -> None:
        """Learn of a step's passes and their losses, for the log."""

    def row(self, seconds: float) -> dict[str, float]:
        """What the log should say besides, since it last asked.

        Args:
            seconds: of training since then; the time of rounds does not count.
        """

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs besides the step; the main process gets that of all ranks."""

    def restore(self, state: Mapping[str, Tensor], log: TrainingLog) -> None:
        """Go on from what `state` returned."""

    def close(self) -> None:
        """Free what the source holds."""


class Demonstrations:
    """Windows of recorded episodes, as a pure function of the step.

    Args:
        recipe: the recipe of the run.
        data: its data at the beginning.
        segments: whether passes are segments end to end.
        ranks: number of processes.
        workers: how many more processes each of them has prepare its steps; 0: a thread does.

    Raises:
        GeneralistError: the rows of a step do not divide evenly over the processes.
    """

    data: TrainingData
    task_weights: np.ndarray  # (tasks,) float32

    def __init__(
        self, recipe: Recipe, data: TrainingData, *, segments: bool, ranks: int, workers: int = 0
    ) -> None:
        self.recipe, self._segments, self._workers = recipe, segments, workers
        self._rows_per_rank, rest = divmod(recipe.data.rows_per_step, ranks)
        if rest:
            raise GeneralistError(
                f"data.rows_per_step {recipe.data.rows_per_step} does not divide evenly over "
                f"{ranks} processes; make it a multiple."
            )
        self.take(data)

    def take(self, data: TrainingData) -> None:
        """See Source."""
        self.data = data
        self.task_weights = task_weights(data, self.recipe.loss.balance_tasks)

    def batches(self, step: int, share: Share) -> AbstractContextManager[Iterator[Sequence[Pass]]]:
        """See Source. The next batch is prepared during the present step."""
        make = partial(self.passes, share=share)
        if self._workers:
            return several_ahead(make, step, workers=self._workers)
        return one_ahead(make, step)

    def passes(self, step: int, share: Share) -> list[ForwardPass]:
        """This rank's passes of a step.

        Row numbers depend on the step alone, so another number of ranks sees the same step.
        """
        first = step * self.recipe.data.rows_per_step + share.rank * self._rows_per_rank
        # At most one core's share per pass, so that all cores have work.
        stride = min(self.recipe.data.rows_per_forward, -(-self._rows_per_rank // share.cores))
        batch = self.data.windows.batch(first, self._rows_per_rank)
        return [
            to_tensors(rows, self.task_weights, segments=self._segments)
            for rows in batch.split(stride)
        ]

    def trained(self, outcomes: Losses, log: TrainingLog) -> None:
        """See Source."""
        for each, losses in outcomes:
            assert isinstance(each, ForwardPass)
            log.add(each, losses)

    def row(self, seconds: float) -> dict[str, float]:
        """See Source. There is nothing besides."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """See Source. The step says all."""
        return {}

    def restore(self, state: Mapping[str, Tensor], log: TrainingLog) -> None:
        """See Source."""

    def close(self) -> None:
        """See Source."""
