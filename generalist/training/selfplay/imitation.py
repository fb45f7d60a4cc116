"""Imitation beside self-play: demonstrations keep what the checkpoint can do in other tasks."""

from __future__ import annotations

from pathlib import Path

import torch

from generalist.acting.checkpoint import RECIPE_FILE
from generalist.errors import GeneralistError, UsageError
from generalist.modeling import PARTS_FOLDER
from generalist.training.data import TrainingData, open_data
from generalist.training.passes import ForwardPass
from generalist.training.recipe import Recipe, load_recipe
from generalist.training.selfplay.recipe import SelfplayRecipe
from generalist.training.selfplay.start import FAMILY, Start
from generalist.training.setup import objective_of
from generalist.training.sources import Demonstrations, Share

_ALONE = Share(rank=0, ranks=1, cores=1)


class Imitation:
    """The imitation loss on demonstrations, a pure function of the step and the weights.

    Args:
        recipe: of the run of self-play.
        parts: of the run; its model is trained whole.

    Raises:
        UsageError: there is no recipe of training, or the demonstrations are not laid out as the
            checkpoint has them.
        GeneralistError: the demonstrations are damaged or missing.
    """

    def __init__(self, recipe: SelfplayRecipe, parts: Start) -> None:
        assert recipe.imitation is not None
        self.weight = recipe.imitation.weight
        training = _training_recipe(recipe)
        data = _open(training, [f"{FAMILY}{name}" for name in recipe.boards])
        _check(data, parts)
        checkpoint = parts.checkpoint
        self._objective = objective_of(
            checkpoint.model, checkpoint.processor.vocabulary, training.loss
        )
        self._objective.segments = True  # boards are played by bodies that run segments alone
        self._demonstrations = Demonstrations(training, data, segments=True, ranks=1)
        self._sums = torch.zeros(len(data.task_names), 2, dtype=torch.float64)

    def backward(self, step: int) -> None:
        """Add the gradient of the weighted mean loss at a step's demonstrations to `.grad`."""
        passes = self._demonstrations.passes(step, _ALONE)
        factor = self.weight / max(sum(each.count for each in passes), 1e-8)
        for each in passes:
            losses = self._objective(each)
            ((losses * each.weight).sum() * factor).backward()
            self._count(each, losses.detach())

    def _count(self, batch: ForwardPass, losses: torch.Tensor) -> None:
        pairs = torch.stack([losses.double(), torch.ones_like(losses, dtype=torch.float64)], dim=1)
        self._sums.index_add_(0, batch.targets.task, pairs)

    def row(self) -> dict[str, float]:
        """Mean losses by task since the last call, for the log."""
        sums: dict[str, torch.Tensor] = {}
        for name, pair in zip(self._demonstrations.data.task_names, self._sums, strict=True):
            sums[name] = sums.get(name, torch.zeros(2)) + pair
        self._sums = torch.zeros_like(self._sums)
        return {
            f"imitation/{name}": float(total / count)
            for name, (total, count) in sums.items()
            if count
        }


def _training_recipe(recipe: SelfplayRecipe) -> Recipe:
    """The recipe by which demonstrations are shown."""
    wanted = recipe.imitation
    assert wanted is not None
    stored = Path(str(recipe.model.init_from)) / PARTS_FOLDER / RECIPE_FILE
    path = wanted.recipe or stored
    try:
        found = load_recipe(path)
    except GeneralistError as error:
        raise UsageError(
            f"imitation needs a recipe of training, and {path} is none: {error} Name one by "
            "imitation.recipe."
        ) from error
    data = {"rows_per_step": wanted.rows, "rows_per_forward": wanted.rows}
    root = {} if wanted.data is None else {"root": wanted.data}
    return found.model_copy(
        update={
            "data": found.data.model_copy(update={**data, **root}),
            "model": recipe.model,
            "seed": recipe.seed,
        }
    )


def _open(recipe: Recipe, played: list[str]) -> TrainingData:
    """The demonstrations, without those of boards that are played."""
    data = open_data(recipe)
    if again := set(data.layouts) & set(played):
        weights = {**recipe.data.weights, **dict.fromkeys(again, 0.0)}
        others = recipe.data.model_copy(update={"weights": weights})
        data = open_data(recipe.model_copy(update={"data": others}))
    return data


def _check(data: TrainingData, parts: Start) -> None:
    """Check that the checkpoint knows the tasks, vocabulary and layouts of the demonstrations."""
    checkpoint = parts.checkpoint
    ours, theirs = checkpoint.processor.vocabulary, data.processor.vocabulary
    if ours != theirs:
        raise UsageError(
            f"The demonstrations have the vocabulary {theirs.fingerprint} and the checkpoint "
            f"{ours.fingerprint}. Name the data that it was trained on by imitation.data."
        )
    for task, layout in data.layouts.items():
        if task not in checkpoint.layouts or checkpoint.layouts[task].to_dict() != layout:
            raise UsageError(
                f"The checkpoint does not know {task} as the demonstrations have it. Imitation "
                "keeps what a checkpoint can do: name the data that it was trained on by "
                "imitation.data."
            )
