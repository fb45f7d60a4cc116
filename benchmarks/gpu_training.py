"""How long a training step takes on a GPU, and which share of its peak that is (MFU).

All ways hold the same weights and compute the same loss, on the same rows of the data, under
autocast to bfloat16; timed are forward and backward pass, without the optimizer.

    python -m benchmarks.gpu_training data/laptop --size 79m --size 364m

labels: `model(input_ids, position_ids=..., labels=...)`, as Hugging Face trains.
mask: `TokenObjective`: logits at targets alone; segments kept apart by transformers' mask.
flash: the same, with flash attention within each segment.
compiled: that with its blocks compiled, as `generalist train` does on a GPU.

MFU counts the FLOPs of the model once, attention causally and within segments, the head at targets
alone (`FlopCounter`), over the GPU's peak by its data sheet.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import print_table, screen, write_json
from benchmarks.training import labels_of
from generalist.modeling.build import build_model
from generalist.specs import list_specs
from generalist.training.data import open_data
from generalist.training.losses import OrdinalTargets
from generalist.training.objective import TokenObjective
from generalist.training.recipe import load_recipe
from generalist.training.tensors import to_tensors
from generalist.training.throughput import FlopCounter, peak_flops

DEVICE = torch.device("cuda")


@dataclass
class Timing:
    """A forward and backward pass."""

    size: str
    way: str
    median_ms: float
    tokens_per_second: float
    mfu: float | None
    peak_gib: float
    first_seconds: float  # with what is compiled
    loss: float


def measure(size: str, root: Path, rows: int | None, rounds: int) -> list[Timing]:
    """Time all ways on the first rows of the data's mixture, in turns."""
    recipe = load_recipe(f"sizes/{size}", [f"data.root={root}"])
    data = open_data(recipe)
    vocabulary = data.processor.vocabulary
    rows = rows or recipe.data.rows_per_forward
    batch = data.windows.batch(0, rows)
    weights = np.ones(len(data.task_names))
    one_pass = to_tensors(batch, weights, segments=False).to(DEVICE)
    model = build_model(recipe.model, vocabulary, recipe.data.window_tokens).to(DEVICE)
    bins = vocabulary["continuous"]

    def objective(compiled: bool, flash: bool) -> Callable[[], torch.Tensor]:
        own = copy.deepcopy(model) if compiled else model
        objective = TokenObjective(own, OrdinalTargets(bins.start, bins.stop, sigma_bins=0.0))
        objective.flash = flash
        if compiled:
            for block in own.get_decoder().layers:
                block.compile()
        return lambda: objective(one_pass).mean()

    labels = labels_of(batch).to(DEVICE)
    tokens = {"input_ids": one_pass.input_ids, "position_ids": one_pass.position_ids}
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "labels": lambda: model(**tokens, labels=labels, use_cache=False).loss,
        "mask": objective(compiled=False, flash=False),
        "flash": objective(compiled=False, flash=True),
        "compiled": objective(compiled=True, flash=True),
    }
    flops = FlopCounter(recipe, vocabulary.size).of(one_pass)
    return _timings(size, ways, rounds, rows * recipe.data.window_tokens, flops)


def _timings(
    size: str,
    ways: dict[str, Callable[[], torch.Tensor]],
    rounds: int,
    tokens: int,
    flops: float,
) -> list[Timing]:
    peak = peak_flops(DEVICE, "bf16")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    losses, first, memory = {}, {}, {}
    for number in range(rounds + 2):
        for way, loss_of in ways.items():
            torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            with torch.autocast("cuda", torch.bfloat16):
                loss = loss_of()
            loss.backward()
            losses[way] = loss.item()
            torch.cuda.synchronize()
            took = time.perf_counter() - began
            memory[way] = torch.cuda.max_memory_allocated() / 2**30
            if number == 0:
                first[way] = took
            elif number > 1:
                seconds[way].append(took)
    found = []
    for way, values in seconds.items():
        median = statistics.median(values)
        mfu = None if peak is None else flops / median / peak
        speed = 1e3 * median, tokens / median, mfu
        found.append(Timing(size, way, *speed, memory[way], first[way], losses[way]))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_training", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("data", type=Path, help="a folder of shards")
    parser.add_argument("--size", action="append", choices=list_specs("sizes"), help="default 79m")
    parser.add_argument("--rows", type=int, help="windows in a pass; default the recipe's")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as JSON")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("this needs a GPU, and PyTorch sees none")
    console, found = screen(), []
    for size in given.size or ["79m"]:
        found += measure(size, given.data, given.rows, given.rounds)
        torch.cuda.empty_cache()
    columns = "model", "way", "median ms", "tokens/s", "MFU", "peak GiB", "first s", "loss"
    rows = [list(asdict(each).values()) for each in found]
    name = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    print_table(console, f"A forward and backward pass, {name}", columns, rows)
    write_json(given.json, {"gpu": name, "timings": [asdict(each) for each in found]})


if __name__ == "__main__":
    main()
