"""What sharding costs in time and saves in memory: ZeRO 1 to 3 and FSDP2 beside DDP, two ranks.

Each strategy trains the same steps on the same rows, started by `accelerate launch` as a user
would, one after the other and several times round. Without a GPU the ranks meet over gloo.

    python -m benchmarks.sharding data/quickstart --rounds 2

step: median seconds of an optimizer step. memory: resident memory of a rank at its highest, looked
at between the backward pass and the step, above what it was before the model was built. start:
the highest at all, which includes building the model whole and gathering it for the export.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console

from benchmarks.measure import print_table, write_json
from generalist.specs import find_spec
from generalist.training.recipe import Recipe, dump_recipe, load_recipe

CONFIGS = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
RANKS = 2
SETTLED = 3  # steps before anything is counted
MIB = 2**20


@dataclass
class Sharded:
    """One strategy; memory of the rank that needs most."""

    config: str
    step_seconds: float
    times_ddp: float
    memory_mib: float
    start_mib: float
    last_loss: float


def recipe_for(data: Path, steps: int, output: Path, overrides: list[str]) -> Recipe:
    """A model of some 30 million parameters, small enough for two ranks on a laptop."""
    fixed = {
        "model": {"architecture": "qwen3", "hidden_size": 512, "intermediate_size": 1408,
                  "layers": 8, "heads": 8},
        "data": {"root": str(data), "window_tokens": 256, "rows_per_step": 4,
                 "rows_per_forward": 1},
        "schedule": {"steps": steps, "warmup_steps": 2},
        "checkpoint": {"every_minutes": None},
        "trackers": [],
        "log_every": 1,
        "output_dir": str(output),
    }  # fmt: skip
    file = output / "recipe.yaml"
    file.write_text(dump_recipe(Recipe.model_validate(fixed)))
    return load_recipe(file, overrides)


def resident() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def run_rank(file: Path) -> None:
    """What each rank does: train, and note time and memory beside the recipe."""
    from generalist.training import loop

    before = resident()
    seconds: list[float] = []
    memory: list[int] = []
    build = loop.build_strategy

    def watched(*arguments: Any) -> Any:
        strategy: Any = build(*arguments)
        strategy.accumulate = timed(strategy.accumulate, seconds)
        take = timed(strategy.step, seconds)

        def step() -> float:
            memory.append(resident())
            return take()

        strategy.step = step
        return strategy

    with patch.object(loop, "build_strategy", watched):
        loop.train(load_recipe(file))
    steps = [sum(pair) for pair in zip(seconds[::2], seconds[1::2], strict=True)]
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {
        "step_seconds": statistics.median(steps[SETTLED:]),
        "memory": max(memory[SETTLED:]) - before,
        "start": highest - before,
    }
    (file.parent / f"rank-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(found))


def timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The same, noting how long it takes."""

    def wrapped(*arguments: Any) -> Any:
        began = time.perf_counter()
        result = call(*arguments)
        seconds.append(time.perf_counter() - began)
        return result

    return wrapped


def measure(config: str, data: Path, steps: int, overrides: list[str]) -> dict[str, float]:
    """One start of one strategy: the slowest rank's time, the largest rank's memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = recipe_for(data, steps, folder, overrides)
        (folder / "recipe.yaml").write_text(dump_recipe(recipe))
        command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
        command += ["--config_file", str(find_spec("accelerate", config))]
        command += ["--num_processes", str(RANKS), "-m", "benchmarks.sharding"]
        command += ["--rank", str(folder / "recipe.yaml")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{config} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        ranks = [json.loads((folder / f"rank-{i}.json").read_text()) for i in range(RANKS)]
        last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    found = {key: max(rank[key] for rank in ranks) for key in ranks[0]}
    return found | {"loss": last["loss"]}


def compare(
    data: Path, configs: list[str], rounds: int, steps: int, overrides: list[str]
) -> list[Sharded]:
    """Every strategy `rounds` times, by turns; the fastest round of each counts."""
    runs: dict[str, list[dict[str, float]]] = {config: [] for config in configs}
    for _ in range(rounds):
        for config in configs:
            runs[config].append(measure(config, data, steps, overrides))
    fastest = {name: min(run["step_seconds"] for run in found) for name, found in runs.items()}
    return [
        Sharded(
            name,
            fastest[name],
            fastest[name] / fastest[configs[0]],
            max(run["memory"] for run in found) / MIB,
            max(run["start"] for run in found) / MIB,
            found[-1]["loss"],
        )
        for name, found in runs.items()
    ]


def main(arguments: list[str] | None = None) -> None:
    """Parse, start, report."""
    parser = argparse.ArgumentParser(prog="benchmarks.sharding", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder of collected shards")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. precision=bf16")
    parser.add_argument("--config", action="append", choices=CONFIGS, help="repeatable; all")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.rank is not None:
        run_rank(options.rank)
        return
    if options.data is None:
        parser.error("name a folder of collected shards")
    configs = options.config or list(CONFIGS)
    data = options.data.resolve()
    found = compare(data, configs, options.rounds, options.steps, options.overrides)
    columns = ["strategy", "step s", f"times {configs[0]}", "memory MiB", "start MiB", "last loss"]
    rows = [list(asdict(each).values()) for each in found]
    print_table(Console(), f"{RANKS} ranks, {options.rounds} rounds", columns, rows)
    write_json(options.json, {"strategies": [asdict(each) for each in found]})


if __name__ == "__main__":
    main()
