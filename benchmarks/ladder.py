"""Which learning rate suits which size: short runs of the quickstart's recipe, side by side.

    python -m benchmarks.ladder data/quickstart --size 1m --size 3m --lr 0.0015 --lr 0.003

Each run takes equally many steps over the same rows, without corrections. What is compared is the
mean label loss over the last fifth of the steps, in nats; the model sees no row twice.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

from benchmarks.measure import print_table, screen, write_json
from generalist.training.loop import train
from generalist.training.recipe import load_recipe
from generalist.training.sizes import SIZES

RATES = (0.0015, 0.003, 0.006)
LAST = 0.2  # share of the steps whose losses count


@dataclass
class Run:
    """A size at a learning rate."""

    size: str
    lr: float
    steps: int
    loss: float
    seconds: float


def measure(data: Path, size: str, lr: float, steps: int) -> Run:
    """Train one model, and read its losses back."""
    with tempfile.TemporaryDirectory() as folder:
        keys = [
            *replace(SIZES[size], lr=lr).overrides(),
            f"data.root={data}", f"output_dir={folder}/run", f"schedule.steps={steps}",
            "schedule.minutes=null", f"schedule.warmup_steps={max(1, steps // 10)}",
            "corrections.tasks={}", "log_every=1", "trackers=[]",
        ]  # fmt: skip
        began = time.monotonic()
        train(load_recipe("quickstart", keys))
        seconds = time.monotonic() - began
        lines = (Path(folder) / "run" / "log.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    return Run(size, lr, steps, statistics.fmean(losses[-max(1, int(LAST * steps)) :]), seconds)


def main(arguments: list[str] | None = None) -> None:
    """Measure every size at every learning rate, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="a collected dataset")
    parser.add_argument("--size", action="append", choices=SIZES, help="default: all")
    parser.add_argument("--lr", action="append", type=float, help="default: 0.0015, 0.003, 0.006")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--json", type=Path, help="write the runs here")
    given = parser.parse_args(arguments)
    runs = [
        measure(given.data, size, lr, given.steps)
        for size in given.size or SIZES
        for lr in given.lr or RATES
    ]
    columns = "size", "learning rate", "steps", "label loss, nats", "seconds"
    print_table(screen(), "Ladder", columns, (astuple(run) for run in runs))
    write_json(given.json, {"runs": [asdict(run) for run in runs]})


if __name__ == "__main__":
    main()
