"""How long a training step takes, beside Hugging Face's own loss on the same rows.

Both hold the same weights and compute the same loss (printed): the cross entropy of the
tokens that are targets, each segment of a row seeing itself alone. Timed are forward and backward
pass, without the optimizer.

    python -m benchmarks.training data/quickstart --size 3M --size 79M

segments: `TokenObjective` as it trains on a CPU: segments end to end, logits at targets alone.
rows: the same with whole rows through the model's own forward pass, as it trains on a GPU.
labels: `model(input_ids, position_ids=..., labels=...)`.
compact: `TokenObjective` on as many positions of the same data in the compact form; labels a second
    beside those of `segments` say what the form is worth (`compact_times_labels`).
segments, bf16: as it trains on a CPU with AMX, the products of the blocks in bfloat16.
labels, bf16: Hugging Face's loss under autocast.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from transformers import PreTrainedModel

from benchmarks.acting import SIZES
from benchmarks.measure import interleaved, print_facts, screen, timing_parser, write_json
from generalist.modeling.build import build_model
from generalist.training.data import open_data
from generalist.training.losses import OrdinalTargets
from generalist.training.objective import TokenObjective
from generalist.training.passes import ForwardPass
from generalist.training.recipe import DataRecipe, Recipe
from generalist.training.setup import build_start
from generalist.training.tensors import to_tensors
from generalist.windows.batch import IGNORE, Batch


@dataclass
class Timing:
    """A forward and backward pass of one subject."""

    subject: str
    median_ms: float
    least_ms: float
    tokens_per_second: float
    loss: float


def objective_step(
    model: PreTrainedModel, batch: ForwardPass, bins: tuple[int, int], half: bool = False
) -> Callable[[], float]:
    """Forward and backward pass of our objective; returns the mean loss."""
    objective = TokenObjective(model, OrdinalTargets(*bins, sigma_bins=0.0))
    objective.half = half

    def step() -> float:
        model.zero_grad()
        loss = objective(batch).mean()
        loss.backward()
        return loss.item()

    return step


def labels_of(batch: Any) -> torch.Tensor:
    """(B, L) int64, as Hugging Face models take them."""
    counted = (batch.targets >= 0) & (batch.position_ids > 0)
    return torch.from_numpy(np.where(counted, batch.targets, IGNORE).astype(np.int64))


def labels_step(model: PreTrainedModel, batch: Any, half: bool = False) -> Callable[[], float]:
    """The same with the loss that Hugging Face models compute from labels."""
    labels = labels_of(batch)
    ids = torch.from_numpy(batch.input_ids.astype(np.int64))
    positions = torch.from_numpy(batch.position_ids.astype(np.int64))

    def step() -> float:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(ids, position_ids=positions, labels=labels, use_cache=False).loss
        loss.backward()
        return loss.item()

    return step


def compact_step(
    root: Path, size: str, window: int, rows: int
) -> tuple[Callable[[], float], Batch]:
    """Forward and backward pass of our objective on rows in the compact form, and these."""
    recipe = Recipe(
        model=SIZES[size].model_copy(update={"form": "compact"}),
        data=DataRecipe(root=root, window_tokens=window, prompt_fraction=0),
    )
    data = open_data(recipe)
    batch = data.windows.batch(0, rows)
    vocabulary = data.processor.vocabulary
    bins = vocabulary["continuous"].start, vocabulary["continuous"].stop
    segments = to_tensors(batch, np.ones(len(data.task_names)), segments=True)
    return objective_step(build_start(recipe, data), segments, bins), batch


def measure(
    root: Path, size: str, window: int, rows: int, rounds: int
) -> tuple[list[Timing], dict[str, Any]]:
    """Time all subjects on the first rows of the data's mixture."""
    data = open_data(Recipe(data=DataRecipe(root=root, window_tokens=window)))
    batch = data.windows.batch(0, rows)
    vocabulary = data.processor.vocabulary
    model = build_model(SIZES[size], vocabulary, window)
    bins = vocabulary["continuous"].start, vocabulary["continuous"].stop
    weights = np.ones(len(data.task_names))
    segments = to_tensors(batch, weights, segments=True)
    subjects = {
        "segments": objective_step(model, segments, bins),
        "rows": objective_step(model, to_tensors(batch, weights, segments=False), bins),
        "labels": labels_step(model, batch),
        "segments, bf16": objective_step(model, segments, bins, half=True),
        "labels, bf16": labels_step(model, batch, half=True),
    }
    compact, batch_of_compact = compact_step(root, size, window, rows)
    subjects["compact"] = compact
    losses = {name: step() for name, step in subjects.items()}
    seconds = interleaved(subjects, rounds)
    timings = [
        Timing(
            name,
            1e3 * statistics.median(values),
            1e3 * min(values),
            rows * window / statistics.median(values),
            losses[name],
        )
        for name, values in seconds.items()
    ]
    median = {each.subject: each.median_ms for each in timings}
    return timings, {
        "size": size,
        "times_labels": median["labels"] / median["segments"],
        "rows_times_labels": median["labels"] / median["rows"],
        "times_labels_bf16": median["labels, bf16"] / median["segments, bf16"],
        "compact_times_labels": (
            (batch_of_compact.targets >= 0).sum()
            / median["compact"]
            / ((batch.targets >= 0).sum() / median["segments"])
        ),
        "target_share": float((batch.targets >= 0).mean()),
        "compact_target_share": float((batch_of_compact.targets >= 0).mean()),
        "padding": float((batch.task_index < 0).mean()),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure each size and print tables."""
    parser = timing_parser("training", __doc__, SIZES, rounds=8)
    parser.add_argument("data", type=Path, help="a folder of shards")
    parser.add_argument("--rows", type=int, default=4, help="windows in a step")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    console, result = screen(), []
    for size in given.size or ["3M"]:
        timings, facts = measure(given.data, size, given.window, given.rows, given.rounds)
        table = Table("subject", "median ms", "least ms", "tokens/s", "loss")
        for each in timings:
            row = (each.median_ms, each.least_ms, each.tokens_per_second)
            table.add_row(each.subject, *(f"{value:.4g}" for value in row), f"{each.loss:.6f}")
        console.print(f"{size}, {given.rows} x {given.window} tokens, {given.threads} thread(s)")
        console.print(table)
        print_facts(console, facts)
        result.append({"facts": facts, "timings": [asdict(each) for each in timings]})
    write_json(given.json, {"threads": given.threads, "sizes": result})


if __name__ == "__main__":
    main()
