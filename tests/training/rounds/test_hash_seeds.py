"""A run with corrections is a function of its recipe: Python's hash seed changes no weight."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from generalist.collecting.collect import collect
from generalist.training.recipe import dump_recipe
from generalist.windows.spec import dataset_spec
from tests.training.runs import assert_bitwise_equal

TASKS = ("gym/Acrobot-v1", "gym/CartPole-v1", "gym/Pendulum-v1")


def train(recipe: Path, output_dir: Path, hash_seed: int) -> None:
    """Train in a process of its own."""
    code = "import sys; from generalist.cli.main import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", code, "train", str(recipe), f"output_dir={output_dir}"],
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_three_hash_seeds_and_a_resumed_run_give_one_set_of_weights(make_recipe, shards, tmp_path):
    tasks = [{"task": task, "episodes": 2, "max_steps": 40} for task in TASKS]
    collect(
        dataset_spec({"tasks": tasks}),
        tmp_path / "data",
        workers=0,
        progress=False,
        processor=str(shards["processor"]),
    )
    recipe = make_recipe(
        corrections={
            "tasks": {task: {"episodes": 1, "max_steps": 20} for task in TASKS},
            "rounds": 1,
            "begin": 0.5,
        },
        checkpoint={"every_steps": 1, "every_minutes": None, "keep": 10},
    )
    recipe.data.root = tmp_path / "data"
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    # The three tasks stand in another order in a set under each of these seeds.
    for seed in (1, 2, 6):
        train(path, tmp_path / str(seed), seed)
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "1", again)
    for step in (5, 6):  # what is left was saved after the round, under seed 1
        shutil.rmtree(again / "checkpoints" / f"step-{step:08d}")
    shutil.rmtree(again / "checkpoint")
    train(path, again, 2)
    for other in ("2", "6", "again"):
        assert_bitwise_equal(tmp_path / "1", tmp_path / other)
