"""What further training costs the other tasks of a checkpoint: its losses at their labels.

Whoever trains a checkpoint further, by self-play or by reinforcement, compares it with what it
began from:

    python -m benchmarks.keeping runs/quickstart/checkpoint runs/boards/checkpoint \
        --data runs/quickstart/data

The first checkpoint's recipe says how demonstrations are shown. Windows are drawn as training draws
them, from rows that no run comes to; the episodes may be those of training. All checkpoints see the
same windows. Losses are means over labels, in nats; those of numbers hold the entropy of their
targets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from benchmarks.measure import screen
from generalist.errors import UsageError
from generalist.modeling.embedder_files import load_embedders
from generalist.modeling.pretrained import load_model, with_sizes_of_start
from generalist.training.data import TrainingData, open_data
from generalist.training.objective import TokenObjective
from generalist.training.recipe import Recipe, load_recipe
from generalist.training.setup import objective_of
from generalist.training.tensors import to_tensors

ROWS_AT_A_TIME = 8
FIRST_ROW = 2**40  # a row number no run comes to


def measure(checkpoints: list[Path], folder: Path, rows: int) -> dict[str, list[float]]:
    """Task -> mean loss of each checkpoint, over the same `rows` windows of the folder."""
    recipe = load_recipe(checkpoints[0] / "generalist/recipe.yaml")
    recipe.data = recipe.data.model_copy(update={"root": folder})
    recipe.model.init_from = str(checkpoints[0])
    recipe.model = with_sizes_of_start(recipe.model)
    data = open_data(recipe)
    found = [_losses(_objective(each, data, recipe), data, rows) for each in checkpoints]
    return {task: [each[task] for each in found] for task in found[0]}


def _objective(checkpoint: Path, data: TrainingData, recipe: Recipe) -> TokenObjective:
    model = load_model(checkpoint).eval()
    model.embedders = load_embedders(checkpoint, model.config.hidden_size)
    if model.embedders is None:
        raise UsageError(f"{checkpoint} is in the flat form; name checkpoints in the compact form.")
    return objective_of(model, data.processor.vocabulary, recipe.loss)


@torch.inference_mode()
def _losses(objective: TokenObjective, data: TrainingData, rows: int) -> dict[str, float]:
    sums = torch.zeros(len(data.task_names), 2, dtype=torch.float64)
    for first in range(0, rows, ROWS_AT_A_TIME):
        count = min(ROWS_AT_A_TIME, rows - first)
        windows = data.windows.batch(FIRST_ROW + first, count)
        batch = to_tensors(windows, np.ones(len(data.task_names)), segments=False)
        losses = objective(batch).double()
        sums.index_add_(0, batch.targets.task, torch.stack([losses, torch.ones_like(losses)], 1))
    by_task: dict[str, torch.Tensor] = {}
    for task, pair in zip(data.task_names, sums, strict=True):
        by_task[task] = by_task.get(task, torch.zeros(2)) + pair
    return {task: float(total / count) for task, (total, count) in by_task.items() if count}


def main(arguments: list[str] | None = None) -> None:
    """Measure every checkpoint and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.keeping", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkpoints", type=Path, nargs="+", help="the first is the one before")
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument("--rows", type=int, default=256, help="windows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as JSON")
    given = parser.parse_args(arguments)
    found = measure(given.checkpoints, given.data, given.rows)
    table = Table("task", *map(str, given.checkpoints))
    for task, losses in found.items():
        table.add_row(task, *(f"{each:.3f}" for each in losses))
    screen().print(table)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
