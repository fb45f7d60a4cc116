"""What sharding costs in time and saves in memory: ZeRO 1 to 3 and FSDP2 beside DDP, two ranks.

Each strategy trains the same steps on the same rows, started by `accelerate launch` as a user
would. All are started at once and then take their steps by turns, one strategy at a time, so that a
machine that slows down for a while slows all of them down. Without a GPU they meet over gloo.

    python -m benchmarks.sharding data/quickstart
    python -m benchmarks.sharding data/quickstart --alone --steps 5 model.layers=12

With --alone, for models of which so many do not fit, one strategy follows the other.

step: median seconds of an optimizer step, until the last rank has it. times: the median over the
rounds of its ratio to the first strategy. The rest is of the rank that needs most, in MiB above
what was there before the model was built. in use: what is allocated between the backward pass and
the step. peak: the most that is resident in a step. run: the most at all, which includes building
the model whole and gathering it for the export.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO
from unittest.mock import patch

from benchmarks import resident
from benchmarks.measure import print_table, screen, write_json
from generalist.specs import find_spec
from generalist.training.recipe import Recipe, dump_recipe, load_recipe

CONFIGS = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
RANKS = 2
SETTLED = 2  # steps before anything is counted
MIB = 2**20


@dataclass
class Sharded:
    """One strategy."""

    config: str
    step_seconds: float
    times_first: float
    in_use_mib: float
    peak_mib: float
    run_mib: float
    last_loss: float


def recipe_for(data: Path, steps: int, output: Path, overrides: list[str]) -> Recipe:
    """A model of 12 million parameters, small enough for ten ranks on a laptop."""
    fixed = {
        "model": {"architecture": "qwen3", "hidden_size": 384, "intermediate_size": 1024,
                  "layers": 4, "heads": 6},
        "data": {"root": str(data), "window_tokens": 1024, "rows_per_step": 4,
                 "rows_per_forward": 1},
        "optimizer": {"lr": 0.0003},
        "schedule": {"steps": steps, "warmup_steps": 2},
        "checkpoint": {"every_minutes": None},
        "trackers": [],
        "log_every": 1,
        "output_dir": str(output),
    }  # fmt: skip
    file = output / "recipe.yaml"
    file.write_text(dump_recipe(Recipe.model_validate(fixed)))
    return load_recipe(file, overrides)


# A rank


class Turns:
    """A strategy that takes a step when it is told to, and reports each."""

    def __init__(self, strategy: Any, connection: socket.socket, before: Mapping[str, int]) -> None:
        self.gather, self.take = strategy.accumulate, strategy.step
        self.before, self.highest = before, 0
        self.turns = connection.makefile("rw")
        strategy.accumulate, strategy.step = self.accumulate, self.step

    def accumulate(self, *arguments: Any) -> Any:
        """The strategy's own, when it is its turn."""
        if not self.turns.readline():
            raise SystemExit("Nobody gives turns any more.")
        self.highest = max(self.highest, resident.peak())
        resident.forget_peak()
        self.began = time.perf_counter()
        return self.gather(*arguments)

    def step(self) -> float:
        """The strategy's own, which ends its turn."""
        in_use = resident.in_use() - self.before["in_use"]
        norm: float = self.take()
        seconds = time.perf_counter() - self.began
        peak = resident.peak() - self.before["resident"]
        self.say({"seconds": seconds, "in_use": in_use, "peak": peak})
        return norm

    def say(self, value: Any) -> None:
        """A line to whoever gives the turns."""
        self.turns.write(json.dumps(value) + "\n")
        self.turns.flush()


def run_rank(file: Path, port: int) -> None:
    """What each rank does: train by turns, and say at last what memory it took at most."""
    from generalist.training import loop

    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import generalist.training.strategies.zero  # noqa: F401  # its code is not memory of the model
    before = {"resident": resident.now(), "in_use": resident.in_use()}
    build = loop.build_strategy
    ranks: list[Turns] = []

    def watched(*arguments: Any) -> Any:
        strategy = build(*arguments)
        ranks.append(Turns(strategy, connection, before))
        ranks[0].say(file.parent.name)
        return strategy

    with socket.create_connection(("localhost", port)) as connection:
        with patch.object(loop, "build_strategy", watched):
            loop.train(load_recipe(file))
        ranks[0].say(max(ranks[0].highest, resident.peak()) - before["resident"])


# All of them


class Launch:
    """A strategy that was started in a folder of its name, and the lines its ranks say."""

    def __init__(self, recipe: Recipe, config: str, port: int) -> None:
        file = recipe.output_dir / "recipe.yaml"
        file.write_text(dump_recipe(recipe))
        command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
        command += ["--config_file", str(find_spec("accelerate", config))]
        command += ["--num_processes", str(RANKS), "--main_process_port", "0"]
        command += ["-m", "benchmarks.sharding", "--rank", str(file), "--port", str(port)]
        self.config, self.log = config, recipe.output_dir / "log.jsonl"
        self.output = recipe.output_dir / "output.txt"
        with self.output.open("w") as output:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        self.ranks: list[TextIO] = []

    def give_turn(self) -> list[dict[str, float]]:
        """Let all ranks take a step; returns what they report."""
        for rank in self.ranks:
            rank.write("\n")
            rank.flush()
        return self.hear()

    def hear(self) -> list[Any]:
        """The next line of every rank."""
        lines = [rank.readline() for rank in self.ranks]
        if not all(lines):
            self.fail()
        return [json.loads(line) for line in lines]

    def fail(self) -> NoReturn:
        """End with what it said."""
        raise SystemExit(f"{self.config} ended:\n{self.output.read_text()[-3000:]}")

    def end(self) -> None:
        """Let go of the ranks, which end if they have not, and wait."""
        for rank in self.ranks:
            rank.close()
        self.process.wait()


def meet(server: socket.socket, launches: Sequence[Launch]) -> None:
    """Wait until every rank of every launch has built its model."""
    named = {launch.config: launch for launch in launches}
    server.settimeout(1.0)
    while any(len(launch.ranks) < RANKS for launch in launches):
        for launch in launches:
            if launch.process.poll() is not None:
                launch.fail()
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        with connection:  # open until the file is closed
            file = connection.makefile("rw")
        named[json.loads(file.readline())].ranks.append(file)


def measure(
    data: Path, configs: Sequence[str], steps: int, overrides: list[str]
) -> dict[str, dict[str, Any]]:
    """Some strategies by turns: seconds of every step, memory, last loss."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        launches: list[Launch] = []
        with socket.create_server(("localhost", 0)) as server:
            for config in configs:
                (folder := root / config).mkdir()
                recipe = recipe_for(data, steps, folder, overrides)
                launches.append(Launch(recipe, config, server.getsockname()[1]))
                stack.callback(launches[-1].end)
            meet(server, launches)
        rounds = [[launch.give_turn() for launch in launches] for _ in range(steps)]
        found: dict[str, dict[str, Any]] = {}
        for launch, reports in zip(launches, zip(*rounds, strict=True), strict=True):
            run = max(launch.hear())
            launch.end()
            # In the last round those before it were already writing their export.
            largest = {
                key: [max(rank[key] for rank in report) for report in reports[SETTLED:-1]]
                for key in ("seconds", "in_use", "peak")
            }
            last = json.loads(launch.log.read_text().splitlines()[-1])
            found[launch.config] = {**largest, "run": run, "loss": last["loss"]}
        return found


def compare(found: Mapping[str, Mapping[str, Any]]) -> list[Sharded]:
    """Each beside the first."""
    first = next(iter(found.values()))["seconds"]
    return [
        Sharded(
            config,
            statistics.median(one["seconds"]),
            statistics.median(a / b for a, b in zip(one["seconds"], first, strict=True)),
            max(one["in_use"]) / MIB,
            max(one["peak"]) / MIB,
            one["run"] / MIB,
            one["loss"],
        )
        for config, one in found.items()
    ]


def main(arguments: list[str] | None = None) -> None:
    """Parse, start, report."""
    parser = argparse.ArgumentParser(prog="benchmarks.sharding", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("data", type=Path, nargs="?", help="folder of collected shards")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. precision=bf16")
    parser.add_argument("--config", action="append", choices=CONFIGS, help="repeatable; all")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--alone", action="store_true", help="one after the other, not by turns")
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_intermixed_args(arguments)
    if options.rank is not None:
        run_rank(options.rank, options.port)
        return
    if options.data is None:
        parser.error("name a folder of collected shards")
    if options.steps < SETTLED + 2:
        parser.error(f"--steps must be at least {SETTLED + 2}")
    configs = list(dict.fromkeys(options.config or CONFIGS))
    found: dict[str, dict[str, Any]] = {}
    for group in [[config] for config in configs] if options.alone else [configs]:
        found |= measure(options.data.resolve(), group, options.steps, options.overrides)
    strategies = [asdict(each) for each in compare(found)]
    columns = ["strategy", "step s", f"times {configs[0]}"]
    columns += ["in use MiB", "peak MiB", "run MiB", "last loss"]
    title = f"{RANKS} ranks, {options.steps} steps"
    print_table(screen(), title, columns, [list(each.values()) for each in strategies])
    write_json(options.json, {"strategies": strategies})


if __name__ == "__main__":
    main()
