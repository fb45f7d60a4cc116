"""A little dataset of real episodes, and the smallest recipe that trains on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from generalist.collecting.collect import collect
from generalist.specs import find_spec
from generalist.tokenization.processor import GeneralistProcessor
from generalist.tokenization.text import TextCodec
from generalist.training.data import TrainingData, open_data
from generalist.training.recipe import Recipe
from generalist.vocabulary import Vocabulary
from generalist.windows.spec import dataset_spec

TASKS = ("gym/Pendulum-v1", "gym/CartPole-v1")


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders: `root` with a few episodes of two tasks, and the `processor` they are made with."""
    folder = tmp_path_factory.mktemp("shards")
    text = TextCodec.from_pretrained(find_spec("tokenizers", "text"))
    GeneralistProcessor(Vocabulary.default(), text).save_pretrained(folder / "processor")
    tasks = [{"task": task, "episodes": 2, "max_steps": 60} for task in TASKS]
    collect(
        dataset_spec({"tasks": tasks}),
        folder / "root",
        workers=0,
        progress=False,
        processor=str(folder / "processor"),
    )
    return {"root": folder / "root", "processor": folder / "processor"}


def recipe_for(shards: dict[str, Path], **sections: object) -> Recipe:
    """A recipe for six steps; keyword arguments replace whole sections."""
    values: dict[str, object] = {
        "model": {"hidden_size": 16, "intermediate_size": 32, "layers": 2, "heads": 2},
        "data": {**shards, "window_tokens": 64, "rows_per_step": 4, "rows_per_forward": 1},
        "schedule": {"steps": 6, "warmup_steps": 2},
        "checkpoint": {"every_steps": 3, "every_minutes": None, "keep": 2},
        "trackers": [],
        "cores": 1,
        "precision": "fp32",  # `auto` depends on the machine
        "log_every": 2,
    }
    return Recipe.model_validate(values | sections)


@pytest.fixture
def make_recipe(shards: dict[str, Path], tmp_path: Path) -> Callable[..., Recipe]:
    """As `recipe_for`, in a folder of the test's own."""
    return partial(recipe_for, shards, output_dir=tmp_path / "run")


@pytest.fixture(scope="session")
def data(shards: dict[str, Path]) -> TrainingData:
    """The windows of `make_recipe`."""
    return open_data(Recipe.model_validate({"data": {**shards, "window_tokens": 64}}))
