"""A round: something that runs between two steps, while training pauses.

A run is an objective, its data, and a list of rounds. A round measures the model (scores) or
changes the data (corrections, improvement).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from torch import nn

from generalist.training.checkpoint import RunState
from generalist.training.data import TrainingData
from generalist.training.log import TrainingLog
from generalist.training.ranks import Ranks
from generalist.training.strategies.launch import StopSignal


class Run(Protocol):
    """The parts of a run that a round may use, on each rank.

    Attributes:
        objective: the objective with its model, on the rank's device. The weights may be sharded
            over the ranks.
        data: the data of the run.
        state: the progress of the run; a round records its own progress here.
        ranks: the processes of the run.
        stop: once it is raised, a round ends as soon as it can.
        log: the log of the run.
    """

    objective: nn.Module
    state: RunState
    ranks: Ranks
    stop: StopSignal
    log: TrainingLog

    @property
    def data(self) -> TrainingData:
        """See above."""

    def save(self) -> None:
        """Save a checkpoint, so that an interrupted round begins again with the same weights."""

    def exported(self) -> AbstractContextManager[Path]:
        """Export the model to a temporary checkpoint to act with; all ranks see its folder."""


class Round(Protocol):
    """Something that runs when it is due. All ranks call its methods at the same time."""

    def due(self, state: RunState) -> bool:
        """Whether to play the round before the next step; the loop asks before every step.

        The answer depends only on the states so far, so it is the same on all ranks.
        """

    def play(self, run: Run) -> bool:
        """Play the round; return False where the run was stopped before its end."""

    def rows(self, state: RunState) -> TrainingData | None:
        """The data of the run after the round; None where the round does not change them."""

    def restore(self, run: Run, checkpoint: Path) -> None:
        """Restore the results of earlier rounds, for a run that continues from a checkpoint."""


def begin_of_round(number: int, count: int, begin: float) -> float:
    """Progress of the schedule, in [0, 1], at which a round begins.

    Args:
        number: of the round, from 0.
        count: how many rounds there are, at equal distances.
        begin: progress at the first one.
    """
    return begin + (1 - begin) * number / count
