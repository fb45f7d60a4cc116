"""What a timestep of acting costs, against model, context, environments and action tokens; a fit.

Every combination of a grid is timed with random weights and observations, on one thread unless
told otherwise. Then the seconds of a timestep are fitted as a sum of five parts, none negative:

    layers       passes x layers                         calling the kernels
    rows         passes x layers x environments          calling those that work row by row
    weights      passes x bytes of the body              reading the weights
    tokens       tokens fed x 2 x parameters             multiplying by them
    keys         passes x bytes of keys and values       reading the caches

A timestep of k action tokens is k passes. Every fourth combination is left out of the fit and
predicted by it: the error stated is theirs. The rates are the machine's, the form is not: with a
device's own rates it says what the same agent would take there (docs/scaling.md).

    python -m benchmarks.scaling --size 1m --size 3m --size 10m
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls

from benchmarks.measure import print_facts, print_table, screen, write_json
from generalist.decoding.decoder import Decoder
from generalist.decoding.sampling import Choice
from generalist.modeling.build import build_model
from generalist.specs import list_specs
from generalist.tokenization.processor import GeneralistProcessor
from generalist.training.recipe import load_recipe

PARTS = ("layers", "rows", "weights", "tokens", "keys")
OBSERVATION_TOKENS = 18
HEADER_TOKENS = 8
WINDOWS, ENVIRONMENTS, ACTION_TOKENS = (128, 512, 1024), (1, 4, 16), (1, 6)
HELD_OUT = 4  # every so many


@dataclass
class Point:
    """One combination: what it is, what it took, and what the fit says."""

    size: str
    window: int
    environments: int
    action_tokens: int
    amounts: dict[str, float]  # of each part, for one timestep of all environments
    milliseconds: float
    predicted: float = 0.0
    held_out: bool = False

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return abs(self.predicted / self.milliseconds - 1)


def amounts(
    model: torch.nn.Module, context: float, environments: int, action_tokens: int
) -> dict[str, float]:
    """How much of each part a timestep has; `context` tokens are attended to on average."""
    body = model.base_model.layers
    parameters = sum(p.numel() for p in body.parameters())
    config = model.config
    layers, width = config.num_hidden_layers, config.num_key_value_heads * config.head_dim
    fed = environments * (OBSERVATION_TOKENS + action_tokens)
    return {
        "layers": action_tokens * layers,
        "rows": action_tokens * layers * environments,
        "weights": action_tokens * 4 * parameters,
        "tokens": fed * 2 * parameters,
        "keys": action_tokens * environments * context * 2 * layers * width * 4,
    }


def measure(
    size: str, model: torch.nn.Module, window: int, environments: int, action_tokens: int,
    rounds: int,
) -> Point:  # fmt: skip
    """Median of `rounds` timesteps, all environments at once, after the window has filled once."""
    vocabulary = GeneralistProcessor.default().vocabulary
    bins = (vocabulary["continuous"].start, vocabulary["continuous"].stop)
    rng = np.random.default_rng(0)
    decoder = Decoder(model, environments, window)
    slots = range(environments)
    choices = [[Choice(interval=bins)] * action_tokens] * environments
    for slot in slots:
        decoder.reset(slot, rng.integers(*bins, HEADER_TOKENS).tolist())

    def step() -> float:
        chunks = rng.integers(*bins, (environments, OBSERVATION_TOKENS)).tolist()
        began = time.perf_counter()
        decoder.act(slots, chunks, choices)
        return time.perf_counter() - began

    for _ in range(window // (OBSERVATION_TOKENS + action_tokens) + 1):
        step()
    seconds, contexts = [], []
    for _ in range(rounds):
        seconds.append(step())
        contexts.append(len(decoder.context(0)))
    found = amounts(model, statistics.fmean(contexts), environments, action_tokens)
    milliseconds = 1e3 * statistics.median(seconds)
    return Point(size, window, environments, action_tokens, found, milliseconds)


def fit(points: list[Point]) -> dict[str, float]:
    """Seconds for one of each part, by least squares of the relative error; fills in predictions.

    Raises ValueError for fewer combinations than parts.
    """
    for number, point in enumerate(points):
        point.held_out = number % HELD_OUT == HELD_OUT - 1
    used = [point for point in points if not point.held_out]
    if len(used) < len(PARTS):
        raise ValueError(f"{len(used)} combinations do not determine {len(PARTS)} rates.")
    features = np.array([[each.amounts[part] for part in PARTS] for each in points])
    seconds = np.array([each.milliseconds / 1e3 for each in points])
    relative = features / seconds[:, None]
    scale = relative.max(axis=0)  # the amounts differ by a factor of 10^10
    kept = np.array([not each.held_out for each in points])
    rates = nnls((relative / scale)[kept], np.ones(len(used)))[0] / scale
    for point, predicted in zip(points, features @ rates, strict=True):
        point.predicted = 1e3 * float(predicted)
    return dict(zip(PARTS, map(float, rates), strict=True))


def describe(rates: dict[str, float]) -> dict[str, float | str]:
    """The rates in units that mean something; a part that the fit leaves out is "none"."""
    inverse = {part: 1 / rate if rate else float("inf") for part, rate in rates.items()}
    return {
        "microseconds a layer and pass": 1e6 * rates["layers"],
        "microseconds a layer, pass and environment": 1e6 * rates["rows"],
        "GB/s of weights": inverse["weights"] / 1e9 if rates["weights"] else "none",
        "GFLOP/s": inverse["tokens"] / 1e9 if rates["tokens"] else "none",
        "GB/s of keys and values": inverse["keys"] / 1e9 if rates["keys"] else "none",
    }


def main(arguments: list[str] | None = None) -> None:
    """Time the grid, fit, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", action="append", choices=list_specs("sizes"), help="1m, 3m, 10m")
    parser.add_argument("--window", action="append", type=int, help=f"default {WINDOWS}")
    parser.add_argument("--rounds", type=int, default=12, help="timesteps of each combination")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as JSON")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    vocabulary = GeneralistProcessor.default().vocabulary
    windows = given.window or list(WINDOWS)
    points = []
    for size in given.size or ["1m", "3m", "10m"]:
        model_recipe = load_recipe(f"sizes/{size}").model
        model = build_model(model_recipe, vocabulary, max(windows)).eval()
        for window, environments, tokens in itertools.product(windows, ENVIRONMENTS, ACTION_TOKENS):
            points.append(measure(size, model, window, environments, tokens, given.rounds))
    rates = fit(points)
    console = screen()
    columns = ["model", "window", "environments", "action tokens", "ms", "fit ms", "held out"]
    rows = [
        [p.size, p.window, p.environments, p.action_tokens, p.milliseconds, p.predicted,
         "yes" if p.held_out else ""]
        for p in points
    ]  # fmt: skip
    print_table(console, f"A timestep, {given.threads} thread(s)", columns, rows)
    errors = [point.error for point in points if point.held_out]
    facts = describe(rates) | {
        "median error of those held out": statistics.median(errors),
        "largest error of those held out": max(errors),
    }
    print_facts(console, facts)
    write_json(given.json, {"facts": facts, "rates": rates, "points": [asdict(p) for p in points]})


if __name__ == "__main__":
    main()
