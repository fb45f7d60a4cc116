"""How well a checkpoint predicts the labels of datasets: of each task, one number a folder.

Whoever wonders why a clone with a good loss acts badly compares the data it was trained on, fresh
demonstrations (`generalist collect` with another `seed`), and its own episodes as an expert
labelled them (a round of a run's corrections):

    python -m benchmarks.imitation runs/quickstart/checkpoint \
        runs/quickstart/data fresh/data runs/quickstart/corrections/round-4

Numbers (actions with an order): R2 of the predicted distribution's mean, all dimensions together.
Choices: the share of labels that are the likeliest id of their range. Past actions are shown or
hidden as in training. Texts are left out.

Shapes: M = targets in a batch, N = bins, V = vocabulary size.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.measure import screen
from generalist.envs import is_document_task
from generalist.training.data import open_data
from generalist.training.passes import ForwardPass
from generalist.training.recipe import load_recipe
from generalist.training.tensors import to_tensors

ROWS_AT_A_TIME = 24
FIRST_ROW = 2**40  # a row number no run comes to


@dataclass
class Prediction:
    """How well the labels of a task in a folder are predicted."""

    folder: str
    task: str
    labels: int
    r2: float | None
    accuracy: float | None


def measure(checkpoint: Path, folder: Path, rows: int) -> list[Prediction]:
    """Predict the labels in `rows` windows of the folder's tasks, drawn as training draws them."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    own = checkpoint / "generalist"  # its processor, and how it was trained
    recipe = load_recipe(own / "recipe.yaml")
    recipe.data = recipe.data.model_copy(
        update={"root": folder, "processor": own, "weights": {}, "prompt_fraction": 0.0}
    )
    data = open_data(recipe)
    vocabulary = data.processor.vocabulary
    bins, buttons = vocabulary["continuous"], vocabulary["discrete"]
    numbers: dict[int, list[np.ndarray]] = defaultdict(list)  # task -> (m, 2) predicted, label
    choices: dict[int, list[np.ndarray]] = defaultdict(list)  # task -> (m,) whether right
    for first in range(0, rows, ROWS_AT_A_TIME):
        count = min(ROWS_AT_A_TIME, rows - first)
        batch = to_tensors(
            data.windows.batch(FIRST_ROW + first, count),
            np.ones(len(data.task_names)),
            segments=False,
        )
        logits = _logits(model, batch)  # (M, V)
        ids, ordinal = batch.targets.ids, batch.targets.ordinal
        for index, task in enumerate(data.task_names):
            mine = batch.targets.task == index
            if is_document_task(task) or not mine.any():
                continue
            at = mine & ordinal
            if at.any():
                mean = logits[at, bins.start : bins.stop].softmax(-1) @ torch.arange(
                    bins.size, dtype=torch.float32
                )
                numbers[index].append(torch.stack([mean, ids[at] - bins.start], 1).numpy())
            at = mine & ~ordinal
            if at.any():
                likeliest = buttons.start + logits[at, buttons.start : buttons.stop].argmax(-1)
                choices[index].append((likeliest == ids[at]).numpy())
    return [
        _prediction(folder, task, numbers.get(index), choices.get(index))
        for index, task in enumerate(data.task_names)
        if index in numbers or index in choices
    ]


@torch.inference_mode()
def _logits(model: PreTrainedModel, batch: ForwardPass) -> torch.Tensor:
    """(M, V) float32 at the targets."""
    hidden = model.get_decoder()(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=None,
        use_cache=False,
    ).last_hidden_state
    hidden = hidden.flatten(0, 1).index_select(0, batch.targets.index)
    return model.get_output_embeddings()(hidden).float()


def _prediction(
    folder: Path, task: str, numbers: list[np.ndarray] | None, choices: list[np.ndarray] | None
) -> Prediction:
    r2 = accuracy = None
    labels = 0
    if numbers:
        predicted, label = np.concatenate(numbers).T
        labels += len(label)
        r2 = float(1 - ((predicted - label) ** 2).mean() / max(label.var(), 1e-9))
    if choices:
        right = np.concatenate(choices)
        labels += len(right)
        accuracy = float(right.mean())
    return Prediction(str(folder), task, labels, r2, accuracy)


def main(arguments: list[str] | None = None) -> None:
    """Measure every folder and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imitation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path, nargs="+", help="folders of shards")
    parser.add_argument("--rows", type=int, default=480, help="windows a folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as JSON")
    given = parser.parse_args(arguments)
    found = [
        each for folder in given.data for each in measure(given.checkpoint, folder, given.rows)
    ]
    table = Table("folder", "task", "labels", "R2", "share right")
    for each in found:
        cells = ["" if x is None else f"{x:.3f}" for x in (each.r2, each.accuracy)]
        table.add_row(each.folder, each.task, str(each.labels), *cells)
    screen().print(table)
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
