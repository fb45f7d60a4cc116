"""kill -9 in the middle of training, again and again: does every restart load, is nothing lost?

A small recipe that saves every few steps trains, is killed at a random moment, and starts again
with the same command, until it is done; then the next run, until there were so many kills. Each
finished run must hold the weights of one that nobody touched: to the bit in one process, within
1e-5 in several.

    python -m benchmarks.crashes data/quickstart --kills 200
    python -m benchmarks.crashes data/quickstart --kills 20 --config zero2
    python -m benchmarks.crashes --kills 50
    python -m benchmarks.crashes --kills 20 --actors 2
    python -m benchmarks.crashes --kills 10 --actors 2 --ray local

In one process a start is a fork of this program, which has imported everything; with --config it is
`accelerate launch` with two ranks, killed with all its processes. Without a folder of data the run
learns from rewards, in CartPole and Pendulum. Its actors are left to end by themselves: those that
still live half a minute after the kill are counted. Actors on Ray learn from who is fast, so such a
run need not end as the untouched one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import load_file

from benchmarks.measure import screen, write_json
from generalist.errors import GeneralistError
from generalist.integrity import verify
from generalist.specs import find_spec
from generalist.training.checkpoint import list_checkpoints
from generalist.training.loop import train
from generalist.training.recipe import Recipe, dump_recipe

OUTPUT = "output.txt"  # of all starts of a run
WEIGHTS = Path("checkpoint") / "model.safetensors"


@dataclass
class Crashes:
    """What came of it."""

    kills: int
    runs: int
    starts: int
    failed_starts: int  # that ended by themselves with an error
    damaged: int  # checkpoints under their final name that do not verify
    left_behind: int  # processes that outlived their run by half a minute
    resumed_from: dict[int, int]  # step -> starts that had it as their newest, 0 for none
    largest_difference: float  # of a weight, from the run that nobody touched
    largest_loss_difference: float


Maker = Callable[[Path], Recipe]
"""Makes the recipe of a run in a folder."""

MODEL = {"hidden_size": 16, "intermediate_size": 32, "layers": 2, "heads": 2}


def recipe_for(output: Path, *, steps: int, every: int, **sections: Any) -> Recipe:
    """A small model, saved every few steps."""
    return Recipe.model_validate(
        {
            "model": MODEL,
            "schedule": {"steps": steps, "warmup_steps": 5},
            "checkpoint": {"every_steps": every, "every_minutes": None, "keep": 2},
            "trackers": [],
            "cores": 1,
            "log_every": 1,
            "output_dir": str(output),
            **sections,
        }
    )


def imitating(data: Path) -> dict[str, Any]:
    """The sections of a recipe that imitates some data."""
    rows = {"window_tokens": 192, "rows_per_step": 4, "rows_per_forward": 1}
    return {"data": {"root": str(data), **rows}}


def reinforcing(actors: int, ray: str | None) -> dict[str, Any]:
    """The sections of a recipe that learns from rewards."""
    tasks = {"gym/CartPole-v1": {"environments": 4}, "gym/Pendulum-v1": {"environments": 4}}
    played = {"tasks": tasks, "unroll": 16, "minibatches": 2, "actors": actors, "ray": ray}
    return {
        "model": {**MODEL, "form": "compact", "embedders": {"width": 4}},
        "data": {"window_tokens": 32, "context_steps": 2},
        "reinforcement": played,
    }


class Forked:
    """A start as a fork of this process, which must not have computed with torch: its threads
    would be missing in the child."""

    def __init__(self, recipe: Recipe, config: str | None) -> None:
        recipe.output_dir.mkdir(parents=True, exist_ok=True)
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                with (recipe.output_dir / OUTPUT).open("a") as output:
                    os.dup2(output.fileno(), 1)
                    os.dup2(output.fileno(), 2)
                train(recipe)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        done, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if done else None

    def kill(self) -> int:
        """kill -9, for it alone.

        Returns:
            How many of its own processes still lived half a minute later; they end now.
        """
        children = psutil.Process(self.pid).children(recursive=True)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        _, alive = psutil.wait_procs(children, timeout=30)
        for each in alive:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        return len(alive)


class Launched:
    """A start of two ranks under an accelerate configuration."""

    def __init__(self, recipe: Recipe, config: str | None) -> None:
        recipe.output_dir.mkdir(parents=True, exist_ok=True)
        file = recipe.output_dir / "recipe.yaml"
        file.write_text(dump_recipe(recipe))
        command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
        command += ["--config_file", str(find_spec("accelerate", str(config)))]
        command += ["--main_process_port", "0", "-m", "generalist.training", str(file)]  # any free
        with (recipe.output_dir / OUTPUT).open("a") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.process.poll()

    def kill(self) -> int:
        """kill -9 for the launcher and all ranks, which have sessions of their own."""
        launcher = psutil.Process(self.process.pid)
        for each in [launcher, *launcher.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()
        return 0


def untouched(recipe: Recipe, config: str | None) -> float:
    """Run to the end; returns the seconds it took."""
    start, began = (Launched if config else Forked)(recipe, config), time.monotonic()
    while (code := start.poll()) is None:
        time.sleep(0.01)
    if code:
        raise SystemExit(f"The run that nobody touches ended with exit code {code}: {_end(recipe)}")
    return time.monotonic() - began


def crash(make: Maker, kills: int, config: str | None, seed: int, root: Path) -> Crashes:
    """Kill and start again until there were `kills`, and the last run is done."""
    reference = make(root / "untouched")
    steps = reference.schedule.steps
    assert steps is not None
    seconds = untouched(reference, config)
    generator = random.Random(seed)
    found = Crashes(0, 0, 0, 0, 0, 0, {}, 0.0, 0.0)
    resumed: Counter[int] = Counter()
    console = screen()
    while found.kills < kills:
        found.runs += 1
        recipe = make(root / f"run-{found.runs}")
        while True:
            found.starts += 1
            newest = _newest_step(recipe, found)
            resumed[newest] += 1
            rows = _rows(recipe.output_dir)
            start = (Launched if config else Forked)(recipe, config)
            # Any moment of what is left and a little beyond it: so many steps, and within the next.
            # Counted in steps, because a start alone may take all the time a whole run once took.
            rows += 1 + int(generator.uniform(0, 1.1) * (steps - newest))
            late = generator.uniform(0, seconds / steps)
            if generator.random() < 0.1:  # while it starts
                rows, late = 0, generator.uniform(0, seconds)
            spared = found.kills >= kills
            while (code := start.poll()) is None:
                if not spared and _rows(recipe.output_dir) >= rows:
                    time.sleep(late)
                    code = start.poll()
                    break
                time.sleep(0.002)
            if code is None:
                found.left_behind += start.kill()
                found.kills += 1
            elif code == 0:
                break
            else:
                found.failed_starts += 1
                console.print(f"A start ended with exit code {code}: {_end(recipe)}", markup=False)
                if found.failed_starts > 5:
                    raise SystemExit("Six starts ended with an error; giving up.")
        _compare(found, reference.output_dir, recipe.output_dir)
        console.print(
            f"run {found.runs}: {found.kills} kills, {found.starts} starts, "
            f"{found.failed_starts} failed, difference {found.largest_difference:g}"
        )
    found.resumed_from = dict(sorted(resumed.items()))
    return found


def _end(recipe: Recipe) -> str:
    """The last that a start said."""
    return (recipe.output_dir / OUTPUT).read_text()[-2000:]


def _newest_step(recipe: Recipe, found: Crashes) -> int:
    """Step of the newest checkpoint that is there, 0 if none; counts those that do not verify."""
    folders = list_checkpoints(recipe.output_dir / "checkpoints")
    good = [folder for folder in folders if _verifies(folder)]
    found.damaged += len(folders) - len(good)
    return int(good[0].name.removeprefix("step-")) if good else 0


def _verifies(folder: Path) -> bool:
    try:
        verify(folder)
    except GeneralistError:
        return False
    return True


def _compare(found: Crashes, untouched: Path, run: Path) -> None:
    """Weights and the loss of every step of two runs; a step may have been taken several times."""
    mine, theirs = load_file(run / WEIGHTS), load_file(untouched / WEIGHTS)
    for name, tensor in theirs.items():
        if not np.array_equal(mine[name], tensor):
            difference = float(np.abs(mine[name] - tensor).max())
            found.largest_difference = max(found.largest_difference, difference)
    expected = dict(_losses(untouched))
    for step, loss in _losses(run):
        difference = abs(loss - expected[step])
        found.largest_loss_difference = max(found.largest_loss_difference, difference)


def _rows(run: Path) -> int:
    """How many rows its log has, one a step."""
    log = run / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _losses(run: Path) -> list[tuple[int, float]]:
    """(step, loss) of every whole line of a log; kill -9 may leave half a line."""
    rows = []
    for line in (run / "log.jsonl").read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows.append((row["step"], row["loss"]))
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Parse, kill, report; exit code 1 where something was lost."""
    parser = argparse.ArgumentParser(prog="benchmarks.crashes", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder of shards to imitate")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--config", help="an accelerate configuration, such as zero2; two ranks")
    parser.add_argument("--actors", type=int, default=0, help="processes that step environments")
    parser.add_argument("--ray", metavar="ADDRESS", help="the actors play on this Ray cluster")
    parser.add_argument("--steps", type=int, default=60, help="of a run")
    parser.add_argument("--every", type=int, default=3, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    learns = (
        imitating(options.data.resolve())
        if options.data
        else reinforcing(options.actors, options.ray)
    )
    make = partial(recipe_for, steps=options.steps, every=options.every, **learns)
    with tempfile.TemporaryDirectory() as folder:
        found = crash(make, options.kills, options.config, options.seed, Path(folder))
    screen().print(asdict(found))
    write_json(options.json, asdict(found))
    lost = found.largest_difference if options.config is None else 0.0
    lost = lost or found.largest_loss_difference > 1e-5
    if found.failed_starts or found.damaged or found.left_behind or (lost and not options.ray):
        sys.exit(1)


if __name__ == "__main__":
    main()
