"""Runs that are watched, interrupted and compared."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from generalist.training.data import TrainingData
from generalist.training.recipe import Recipe, dump_recipe


class Counting:
    """Windows that note which rows are read, and do something once before row `at`."""

    def __init__(self, windows, at: int = 0, action=None) -> None:
        self.windows, self.at, self.action = windows, at, action
        self.rows: list[int] = []

    def batch(self, start: int, rows: int):
        self.rows += range(start, start + rows)
        if self.action and start >= self.at:
            action, self.action = self.action, None
            action()
        return self.windows.batch(start, rows)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / "model.safetensors")


def assert_bitwise_equal(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def recipe_file(recipe: Recipe, folder: Path) -> Path:
    """The recipe, written to a file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    return path


def replaced(data, windows):
    return TrainingData(**{**vars(data), "windows": windows})
