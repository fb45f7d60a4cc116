"""A round: what happens between two steps of a run. Training pauses, it plays, training goes on.

A run is an objective, what it is trained on, and a list of rounds. A round may only look
(scores), or change what is trained on (corrections).
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
    """What a round finds of the run that it interrupts, on each rank.

    Attributes:
        objective: holds the model that is trained, on the rank's device. Its weights may lie in
            shards over the ranks.
        data: what is trained on.
        state: where the run stands. A round notes here what it has done.
        ranks: the processes of the run.
        stop: where it is raised, the round ends as soon as it can.
        log: where the round tells what it does.
    """

    objective: nn.Module
    data: TrainingData
    state: RunState
    ranks: Ranks
    stop: StopSignal
    log: TrainingLog

    def save(self) -> None:
        """Save a checkpoint, so that a round that is cut short begins again with these weights."""

    def exported(self) -> AbstractContextManager[Path]:
        """The model as a checkpoint to act with, for a while, in a folder that all ranks see."""


class Round(Protocol):
    """Something that is played when it is due. All ranks call its methods at the same time."""

    def due(self, state: RunState) -> bool:
        """Whether it is to be played before the next step; asked before each.

        It follows from the states that it was asked about, so all ranks come to the same.
        """

    def play(self, run: Run) -> bool:
        """Play; False where the run was stopped before the end."""

    def rows(self, state: RunState) -> TrainingData | None:
        """What is trained on from here on; None where the round does not change that."""

    def restore(self, run: Run, checkpoint: Path) -> None:
        """Find again what it has given a run that continues from this checkpoint."""
