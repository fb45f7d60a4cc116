"""The composition of training batches by task and family, measured before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from generalist.settings import family_of
from generalist.training.data import open_data, task_weights
from generalist.training.recipe import Recipe

_SUMMED = (
    "episodes",
    "available",
    "data_tokens",
    "weight",
    "tokens",
    "targets",
    "loss",
    "segments",
    "prompted",
    "unmatched",
)


@dataclass
class BatchShare:
    """The share that a task or a family has of the batches.

    Attributes:
        name: name of the task or family.
        episodes: episodes that training uses.
        available: episodes in the data.
        data_tokens: tokens of `episodes`.
        weight: share of the mixture weights.
        tokens: share of all tokens, without padding.
        targets: share of all targets.
        loss: share of the weight of all targets in the loss.
        segments: number of segments.
        prompted: segments that begin with a demonstration.
        unmatched: segments without one, because no other episode has the same instruction.
    """

    name: str
    episodes: int = 0
    available: int = 0
    data_tokens: int = 0
    weight: float = 0.0
    tokens: float = 0.0
    targets: float = 0.0
    loss: float = 0.0
    segments: int = 0
    prompted: int = 0
    unmatched: int = 0


@dataclass(kw_only=True)
class Composition:
    """The composition of the first rows of a run.

    Attributes:
        rows: number of rows (windows).
        window_tokens: tokens of a row.
        padding: share of the tokens that is padding.
        targets_per_row: mean number of targets per row.
        tasks: the shares of the tasks.
        families: the shares of the families.
    """

    rows: int
    window_tokens: int
    padding: float
    targets_per_row: float
    tasks: list[BatchShare]
    families: list[BatchShare]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def compose(recipe: Recipe, rows: int = 512) -> Composition:
    """Measure the composition of the first `rows` windows of a run by this recipe."""
    opened = open_data(recipe)
    windows: Any = opened.windows
    usage = windows.usage(rows)
    shares = {name: BatchShare(name) for name in sorted(opened.task_names)}
    per_target = task_weights(opened, recipe.loss.balance_tasks)
    # Behind the demonstrations, which have weights, are corrections of earlier runs.
    for data, weight, of_target in zip(windows.tasks, opened.weights, per_target, strict=False):
        share = shares[data.task]  # several folders may hold one task
        share.episodes += len(data)
        share.available = opened.available[data.task]
        share.data_tokens += int(data.episodes["length"].sum())
        share.weight += weight / sum(opened.weights)
        share.tokens = usage.tokens[data.task] / max(1e-12, 1 - usage.padding)
        share.targets = usage.targets[data.task]
        share.segments = usage.segments[data.task]
        share.prompted = usage.prompted[data.task]
        share.unmatched = usage.unmatched[data.task]
        share.loss = usage.weights[data.task] * float(of_target)
    total = sum(share.loss for share in shares.values())
    for share in shares.values():
        share.loss /= total or 1.0
    tasks = list(shares.values())
    return Composition(
        rows=rows,
        window_tokens=windows.window_tokens,
        padding=usage.padding,
        targets_per_row=usage.targets_per_row,
        tasks=tasks,
        families=_families(tasks),
    )


def _families(tasks: Sequence[BatchShare]) -> list[BatchShare]:
    families: dict[str, BatchShare] = {}
    for share in tasks:
        family = families.setdefault(family_of(share.name), BatchShare(family_of(share.name)))
        for key in _SUMMED:
            setattr(family, key, getattr(family, key) + getattr(share, key))
    return list(families.values())
