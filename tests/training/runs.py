"""Runs that are watched, interrupted and compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from generalist.specs import find_spec
from generalist.training.checkpoint import newest_checkpoint
from generalist.training.data import TrainingData
from generalist.training.recipe import Recipe, dump_recipe

ROOT = Path(__file__).resolve().parents[2]


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


def last_step(run: Path) -> int:
    """The step that the newest checkpoint of a run stands at."""
    state = newest_checkpoint(run / "checkpoints") / "state.json"
    return json.loads(state.read_text())["step"]


def launched(recipe: Path, config: str, module: str, *arguments: str) -> Path:
    """Run a module under `accelerate launch` on two ranks, in the recipe's folder; its output.

    The file it returns holds what all ranks wrote.
    """
    folder = recipe.parent
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    command += ["--config_file", str(find_spec("accelerate", config)), "--num_processes", "2"]
    command += ["--main_process_port", "0", "-m", module, str(recipe), *arguments]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    output = folder / "output.txt"
    with output.open("w") as file:
        done = subprocess.run(command, cwd=folder, env=environment, stdout=file, stderr=file)
    assert done.returncode == 0, output.read_text()[-3000:]
    return output


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
