"""Values: what a model in reinforcement expects to earn, one head a task, in units of its returns.

A head reads the hidden state that chooses the first action token. What it says is normalised: the
value is that times spread plus mean, with statistics of the task's own returns. While a model
learns, the heads are its submodule `values`; in a checkpoint they lie beside the plain weights.

There are two kinds (`HEADS`): a scalar, learned by its squared error, and a distribution over bins,
learned by cross-entropy.

Shapes: n = states, D = hidden size, K = bins.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

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
_TASKS, _HEAD = "tasks", "head"  # keys of the file's metadata


class Values(nn.Module, ABC):
    """The value heads of some tasks, and the statistics of their returns.

    Args:
        tasks: names of the tasks; head i is of task i.
        hidden_size: D.
    """

    head: ClassVar[str]
    """Name of the kind, as recipes and checkpoints have it."""
    rows: ClassVar[tuple[int, ...]]
    """Shape of the outputs of one state, each of which is one linear row."""

    mean: Tensor  # (tasks,) float64, of the returns
    square: Tensor  # (tasks,) float64, mean square of the returns
    seen: Tensor  # (tasks,) float64, weight of what was seen, in [0, 1]

    def __init__(self, tasks: Sequence[str], hidden_size: int) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.weight = nn.Parameter(torch.zeros(len(self.tasks), *self.rows, hidden_size))
        self.bias = nn.Parameter(torch.zeros(len(self.tasks), *self.rows))
        for name, start in (("mean", 0.0), ("square", 1.0), ("seen", 0.0)):
            self.register_buffer(name, torch.full((len(self.tasks),), start, dtype=torch.float64))

    @property
    def spread(self) -> Tensor:
        """(tasks,) float64 standard deviations of the returns."""
        return (self.square - self.mean.square()).clamp(min=_LEAST_SPREAD**2).sqrt()

    @abstractmethod
    def forward(self, hidden: Tensor, task: Tensor) -> Tensor:
        """(n, *rows) outputs of hidden states (n, D) of tasks number `task`, (n,) int64."""

    def value(self, outputs: Tensor, task: Tensor) -> Tensor:
        """(n,) float32 values in units of rewards, of (n, *rows) outputs."""
        normalised = self._expected(outputs).double()
        return (normalised * self.spread[task] + self.mean[task]).float()

    def losses(self, outputs: Tensor, values: Tensor, task: Tensor) -> Tensor:
        """(n,) float32 losses of (n, *rows) outputs.

        Args:
            outputs: of `forward`.
            values: (n,) float32, what the values should be, in units of rewards.
            task: (n,) int64.
        """
        wanted = ((values - self.mean[task]) / self.spread[task]).float()
        return self._losses(outputs, wanted)

    @torch.no_grad()
    def adapt(self, mean: Tensor, square: Tensor, present: Tensor, rate: float) -> None:
        """Move the statistics.

        Args:
            mean: (tasks,) float64 means of new returns.
            square: (tasks,) float64 mean squares of new returns.
            present: (tasks,) bool, False for tasks of which there are none.
            rate: weight of the new returns, in (0, 1]; more as long as little was seen.
        """
        seen = self.seen + rate * (1 - self.seen)
        share = torch.where(present, rate / seen, 0.0)
        self.mean.lerp_(mean.where(present, self.mean), share)
        self.square.lerp_(square.where(present, self.square), share)
        self.seen.copy_(torch.where(present, seen, self.seen))

    @abstractmethod
    def _expected(self, outputs: Tensor) -> Tensor:
        """(n,) float32 normalised values of (n, *rows) outputs."""

    @abstractmethod
    def _losses(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """(n,) float32 losses of outputs whose normalised values should be `wanted`, (n,)."""


class ScalarValues(Values):
    """One row a task: the normalised value itself, learned by half its squared error.

    When the statistics move, the row moves against them, so that no value changes (PopArt: van
    Hasselt et al. 2016, section 2; of many tasks, Hessel et al. 2018, section 3).
    """

    head, rows = "scalar", ()

    def forward(self, hidden: Tensor, task: Tensor) -> Tensor:
        """See Values."""
        return (hidden * F.embedding(task, self.weight)).sum(-1) + self.bias[task]

    @torch.no_grad()
    def adapt(self, mean: Tensor, square: Tensor, present: Tensor, rate: float) -> None:
        """Move the statistics, and the rows against them: every value stays as it was."""
        before_mean, before_spread = self.mean.clone(), self.spread
        super().adapt(mean, square, present, rate)
        scale = before_spread / self.spread
        shift = (before_mean - self.mean) / self.spread
        self.weight.copy_(self.weight.double() * scale[:, None])
        self.bias.copy_(self.bias.double() * scale + shift)

    def _expected(self, outputs: Tensor) -> Tensor:
        return outputs

    def _losses(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        return 0.5 * (outputs - wanted).square()


class CategoricalValues(Values):
    """K rows a task: logits of bins, whose mean is the normalised value.

    The loss is the cross-entropy to a Gaussian around the target, integrated over each bin
    (HL-Gauss: Imani & White 2018; Farebrother et al. 2024, section 3.1).

    Bins are of equal width and reach `REACH` spreads to both sides of the task's mean. So nobody
    has to know bounds, and rewards that are a thousand times as large teach alike. At most 1% of
    any returns lie beyond 10 of their spreads (Chebyshev's inequality); such a target counts as
    the outermost bin. Bins on a symmetric logarithm, common to all tasks, need no bounds either
    (DreamerV3, Hafner et al. 2023). But returns from 0 to 1 would share five of 256 such bins,
    and a young model's small probability of the outermost ones would outweigh any real return.

    When the statistics move, the logits stay, so all values of a task move with them. Rows that
    kept the values would have to carry their probability from bin to bin while returns grow.
    In two runs of CartPole values then lagged behind the returns.
    """

    REACH = 10.0
    """Where the centres of the outermost bins lie, in spreads."""
    BINS = 101
    """K."""
    SIGMA = 0.75
    """Standard deviation of a target, in bins, as Farebrother et al. recommend."""

    head, rows = "categorical", (BINS,)

    def __init__(self, tasks: Sequence[str], hidden_size: int) -> None:
        super().__init__(tasks, hidden_size)
        self._half = (self.BINS - 1) // 2
        self._width = self.REACH / self._half  # of a bin, in spreads

    def forward(self, hidden: Tensor, task: Tensor) -> Tensor:
        """See Values. Logits of all tasks are less than a copy of K rows for each state."""
        logits = F.linear(hidden, self.weight.flatten(0, 1), self.bias.flatten())
        of_tasks = logits.view(len(task), *self.bias.shape)
        return of_tasks[torch.arange(len(task), device=task.device), task].float()

    def projected(self, normalised: Tensor) -> Tensor:
        """(n, K) probabilities of the bins, whose mean is the normalised value, (n,).

        Values beyond the bins are cut. The outermost bins take what a Gaussian has beyond them,
        which draws the mean inwards where the value is within two bins of the end.
        """
        place = (normalised / self._width).clamp(-self._half, self._half)  # in bins
        edges = torch.arange(-self._half, self._half, device=place.device) + 0.5
        below = torch.special.ndtr((edges - place[:, None]) / self.SIGMA)
        return torch.diff(below, dim=1, prepend=below.new_zeros(len(below), 1),
                          append=below.new_ones(len(below), 1))  # fmt: skip

    def _expected(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(-1) @ (self._numbers(outputs) * self._width)

    def _losses(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        return -(self.projected(wanted) * outputs.log_softmax(-1)).sum(-1)

    def _numbers(self, like: Tensor) -> Tensor:
        """(K,) numbers of the bins, 0 in the middle, of the type and device of a tensor."""
        return torch.arange(-self._half, self._half + 1, dtype=like.dtype, device=like.device)


HEADS: dict[str, type[Values]] = {each.head: each for each in (ScalarValues, CategoricalValues)}
"""The kinds of values by name."""


def values_of(model: Any) -> Values | None:
    """The values of a model; None where it has none."""
    return getattr(model, MODULE, None)


def save_values(values: Values, checkpoint: Path) -> None:
    """Write values into the folder of a checkpoint."""
    tensors = {name: each.contiguous() for name, each in values.state_dict().items()}
    path = checkpoint / PARTS_FOLDER / WEIGHTS_FILE
    save_file(tensors, path, metadata={_TASKS: "\n".join(values.tasks), _HEAD: values.head})


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
            said = file.metadata()
        tensors = load_file(path)
        head = HEADS[said.get(_HEAD, ScalarValues.head)]  # older files do not say it
        values = head(said[_TASKS].split("\n"), tensors["weight"].shape[-1])
        values.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, IndexError, SafetensorError) as error:
        raise GeneralistError(
            f"{path} does not hold the values of tasks: {str(error).splitlines()[0]} Copy the "
            "checkpoint again."
        ) from error
    return values


def start_values(
    head: str, tasks: Sequence[str], hidden_size: int, source: str | None = None
) -> Values:
    """The values of a run as it starts.

    Args:
        head: their kind, one of `HEADS`.
        tasks: names of the run's tasks.
        hidden_size: D.
        source: a checkpoint whose values of these tasks are kept. Where they are of the other kind
            only their statistics are, and a warning says so.
    """
    values = HEADS[head](tasks, hidden_size)
    before = None if source is None else load_values(source)
    common = () if before is None else [task for task in values.tasks if task in before.tasks]
    if before is None or not common:
        return values
    kept = before.state_dict()
    if before.head != head:
        warnings.warn(
            f"{source} has {before.head} values, and the recipe asks for {head} ones, which begin "
            "anew. Set reinforcement.value_warmup, so that they are learned before the policy is.",
            stacklevel=2,
        )
        del kept["weight"], kept["bias"]
    own = values.state_dict()
    for task in common:
        for name, each in kept.items():
            own[name][values.tasks.index(task)] = each[before.tasks.index(task)]
    return values
