"""Values: what a model in reinforcement expects to earn, one linear row a task, with PopArt.

A row reads the hidden state that chooses the first action token. Its output is normalised: the
value is output times spread plus mean, with statistics of the task's own returns. When they move,
the row moves against them, so that no value changes (van Hasselt et al. 2016, section 2; of many
tasks, Hessel et al. 2018, section 3). While a model learns, this is its submodule `values`; in a
checkpoint it lies beside the plain weights.

Shapes: n = states, D = hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from generalist.errors import GeneralistError
from generalist.modeling import PARTS_FOLDER

MODULE = "values"
"""The attribute of a model that holds its values, and so the prefix of their weights' names."""

WEIGHTS_FILE = "values.safetensors"
_LEAST_SPREAD = 1e-4  # of returns that are all alike
_TASKS = "tasks"  # key of the file's metadata


class Values(nn.Module):
    """The value rows of some tasks, and the statistics of their returns.

    Args:
        tasks: names of the tasks; row i is of task i.
        hidden_size: D.
    """

    mean: Tensor  # (tasks,) float64, of the returns
    square: Tensor  # (tasks,) float64, mean square of the returns
    seen: Tensor  # (tasks,) float64, weight of what was seen, in [0, 1]

    def __init__(self, tasks: Sequence[str], hidden_size: int) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.weight = nn.Parameter(torch.zeros(len(self.tasks), hidden_size))
        self.bias = nn.Parameter(torch.zeros(len(self.tasks)))
        for name, start in (("mean", 0.0), ("square", 1.0), ("seen", 0.0)):
            self.register_buffer(name, torch.full((len(self.tasks),), start, dtype=torch.float64))

    @property
    def spread(self) -> Tensor:
        """(tasks,) float64 standard deviations of the returns."""
        return (self.square - self.mean.square()).clamp(min=_LEAST_SPREAD**2).sqrt()

    def forward(self, hidden: Tensor, task: Tensor) -> Tensor:
        """(n,) normalised values of hidden states (n, D) of tasks number `task`, (n,) int64."""
        return (hidden * F.embedding(task, self.weight)).sum(-1) + self.bias[task]

    def unnormalised(self, outputs: Tensor, task: Tensor) -> Tensor:
        """(n,) values in units of rewards, of (n,) outputs; both float32."""
        return (outputs.double() * self.spread[task] + self.mean[task]).float()

    @torch.no_grad()
    def adapt(self, mean: Tensor, square: Tensor, present: Tensor, rate: float) -> None:
        """Move the statistics, and the rows against them: every value stays as it was.

        Args:
            mean: (tasks,) float64 means of new returns.
            square: (tasks,) float64 mean squares of new returns.
            present: (tasks,) bool, False for tasks of which there are none.
            rate: weight of the new returns, in (0, 1]; more as long as little was seen.
        """
        before_mean, before_spread = self.mean.clone(), self.spread
        seen = self.seen + rate * (1 - self.seen)
        share = torch.where(present, rate / seen, 0.0)
        self.mean.lerp_(mean.where(present, self.mean), share)
        self.square.lerp_(square.where(present, self.square), share)
        self.seen.copy_(torch.where(present, seen, self.seen))
        scale = before_spread / self.spread
        shift = (before_mean - self.mean) / self.spread
        self.weight.copy_(self.weight.double() * scale[:, None])
        self.bias.copy_(self.bias.double() * scale + shift)


def values_of(model: Any) -> Values | None:
    """The values of a model; None where it has none."""
    return getattr(model, MODULE, None)


def save_values(values: Values, checkpoint: Path) -> None:
    """Write values into the folder of a checkpoint."""
    tensors = {name: each.contiguous() for name, each in values.state_dict().items()}
    path = checkpoint / PARTS_FOLDER / WEIGHTS_FILE
    save_file(tensors, path, metadata={_TASKS: "\n".join(values.tasks)})


def load_values(checkpoint: str | Path) -> Values | None:
    """The values of a checkpoint; None where it has none.

    Raises:
        GeneralistError: their file is damaged.
    """
    path = Path(checkpoint) / PARTS_FOLDER / WEIGHTS_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            tasks = file.metadata()[_TASKS].split("\n")
        tensors = load_file(path)
        values = Values(tasks, tensors["weight"].shape[1])
        values.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, IndexError, SafetensorError) as error:
        raise GeneralistError(
            f"{path} does not hold the values of tasks: {str(error).splitlines()[0]} Copy the "
            "checkpoint again."
        ) from error
    return values


def start_values(tasks: Sequence[str], hidden_size: int, source: str | None = None) -> Values:
    """The values of a run as it starts.

    Args:
        tasks: names of the run's tasks.
        hidden_size: D.
        source: a checkpoint whose values of these tasks are kept.
    """
    values = Values(tasks, hidden_size)
    before = None if source is None else load_values(source)
    if before is not None:
        own = values.state_dict()
        for number, task in enumerate(values.tasks):
            if task in before.tasks:
                for name, each in before.state_dict().items():
                    own[name][number] = each[before.tasks.index(task)]
    return values
