"""Training on text about what is seen, beside control: how rows are laid out changes no loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from generalist.collecting.collect import collect
from generalist.training.data import TrainingData, open_data
from generalist.training.recipe import Recipe
from generalist.windows.spec import dataset_spec
from tests.training.test_compact import SIZES, assert_same_losses


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixed")
    tasks = [
        {"task": "vqa/BabyAI", "episodes": 30, "weight": 3},
        {"task": "gym/CartPole-v1", "episodes": 2, "max_steps": 30},
    ]
    collect(dataset_spec({"tasks": tasks}), root, workers=0, progress=False)
    return root


@pytest.mark.parametrize("form", ["compact", "flat"])
def test_rows_segments_and_segments_alone_have_the_same_losses(mixed: Path, form: str) -> None:
    model = {**SIZES, "form": form, "embedders": {"positions": 2, "width": 4}}
    window = {"compact": 96, "flat": 384}[form]
    data = {"root": str(mixed), "window_tokens": window, "prompt_fraction": 0.0}
    recipe = Recipe.model_validate(
        {"model": model, "data": data, "schedule": {"steps": 1}, "output_dir": "unused"}
    )
    rows: TrainingData = open_data(recipe)
    batch = rows.windows.batch(0, 3)
    assert len(np.unique(batch.task_index[batch.task_index >= 0])) == 2
    assert_same_losses(recipe, rows)
