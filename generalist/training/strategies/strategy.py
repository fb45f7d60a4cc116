"""Where a run's weights, gradients and moments lie: whole on every process, or in shards.

Whichever it is, a checkpoint holds whole tensors by name. So a run can go on under another strategy
or with another number of processes, and all of it is safetensors.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from generalist.errors import GeneralistError
from generalist.training.gradients import Losses
from generalist.training.passes import ForwardPass
from generalist.training.recipe import Recipe

Tensors = dict[str, Tensor]


class Strategy(Protocol):
    """What the loop asks of it. Every method but `close` is called on all processes at once."""

    optimizers: list[torch.optim.Optimizer]
    cores: int  # forward passes that run side by side

    def describe(self) -> str:
        """What is really running, for people."""

    def accumulate(self, passes: Sequence[ForwardPass], scale: float) -> tuple[Tensor, Losses]:
        """Gradients of scale times the weighted sum of losses, averaged over processes.

        Returns this process's sum, and each forward pass with its (M,) losses.
        """

    def step(self) -> float:
        """Clip, take a step unless a gradient is not finite, forget the gradients.

        Returns the norm of the gradients before clipping, infinite or NaN where no step was taken.
        """

    def weights(self) -> Tensors:
        """Whole float32 weights by name, on the CPU; the main process gets them all."""

    def moments(self) -> Tensors:
        """The optimizers' whole state as `kind/name`, likewise."""

    def load(self, weights: Tensors, moments: Tensors) -> None:
        """Inverse of the two, with the whole tensors on every process."""

    def close(self) -> None:
        """End whatever was started."""


def require_adamw(recipe: Recipe, strategy: str) -> None:
    """Raise GeneralistError for an optimizer that needs whole matrices, which are cut here."""
    if (name := recipe.optimizer.name) != "adamw":
        raise GeneralistError(
            f"{strategy} cuts matrices into pieces, and optimizer.name {name!r} needs whole ones; "
            "use adamw, or a launch that does not shard."
        )


def check_names(expected: Collection[str], weights: Tensors) -> None:
    """Raise GeneralistError unless there is a tensor for each name and no other."""
    missing, unknown = set(expected) - weights.keys(), weights.keys() - set(expected)
    if missing or unknown:
        raise GeneralistError(
            "The checkpoint holds the weights of another model: "
            f"{len(missing)} missing, {len(unknown)} unknown."
        )
