"""Strategies: weights, gradients and moments are whole on every process, or sharded.

A checkpoint holds whole tensors by name in any case. So a run can continue under another strategy
or with another number of processes, and its files are safetensors.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from generalist.errors import GeneralistError
from generalist.training.gradients import Losses
from generalist.training.passes import Pass
from generalist.training.recipe import Recipe

Tensors = dict[str, Tensor]


class Strategy(Protocol):
    """The interface for the loop. All processes call every method but `close` together.

    Attributes:
        optimizers: the optimizers, whose learning rate the loop sets.
        cores: number of forward passes that run in parallel.
    """

    optimizers: list[torch.optim.Optimizer]
    cores: int

    def describe(self) -> str:
        """Strategy, processes and device as they really are, in words."""

    def accumulate(self, passes: Sequence[Pass], scale: float) -> tuple[Tensor, Losses]:
        """Compute the gradients of a step, averaged over processes.

        Args:
            passes: the forward passes of this process.
            scale: factor on the weighted sum of their losses.

        Returns:
            This process's scaled sum, and each forward pass with its (M,) losses.
        """

    def step(self) -> float:
        """Clip the gradients, update the weights if all are finite, and clear the gradients.

        Returns:
            The norm of the gradients before clipping; infinite or NaN where there was no update.
        """

    def weights(self) -> Tensors:
        """Whole float32 weights by name, on the CPU; only the main process gets all of them."""

    def moments(self) -> Tensors:
        """Whole state of the optimizers as `kind/name`, for the main process as `weights`."""

    def load(self, weights: Tensors, moments: Tensors) -> None:
        """Load what `weights` and `moments` returned; every process passes all whole tensors."""

    def close(self) -> None:
        """End the processes and engines that the strategy started."""


def require_adamw(recipe: Recipe, strategy: str) -> None:
    """Check that the optimizer works on shards of matrices.

    Args:
        recipe: the recipe of the run.
        strategy: name of the strategy, for the error.

    Raises:
        GeneralistError: it needs whole matrices.
    """
    if (name := recipe.optimizer.name) != "adamw":
        raise GeneralistError(
            f"{strategy} cuts matrices into pieces, and optimizer.name {name!r} needs whole ones; "
            "use adamw, or a launch that does not shard."
        )


def check_names(expected: Collection[str], weights: Tensors) -> None:
    """Check that `weights` has a tensor for each expected name and no other.

    Raises:
        GeneralistError: names are missing or unknown.
    """
    missing, unknown = set(expected) - weights.keys(), weights.keys() - set(expected)
    if missing or unknown:
        raise GeneralistError(
            "The checkpoint holds the weights of another model: "
            f"{len(missing)} missing, {len(unknown)} unknown."
        )
