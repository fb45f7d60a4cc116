"""What is opened for training says how its tasks are played, and what it leaves out."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from generalist.shards.reader import TaskData
from generalist.shards.shards import EncodedEpisode, ShardWriter
from generalist.training.data import open_data

PENDULUM = "gym/Pendulum-v1"


def written_again(source: Path, folder: Path, /, **collection: object) -> Path:
    """The episodes of a dataset folder under another account of where they are from."""
    data = TaskData(source)
    with ShardWriter(folder, replace(data.header, collection=collection)) as writer:
        for number in range(len(data)):
            parts = data.tokens(number), data.rewards(number), data.labels(number)
            writer.add(EncodedEpisode(*parts, dict(data.record(number))))
    return folder


@pytest.mark.parametrize("imported_first", [True, False])
def test_the_first_collected_header_says_how_a_task_is_played(
    make_recipe, shards, tmp_path, imported_first
):
    source, pendulum = shards["root"] / PENDULUM, {"expert": "swing-up", "options": {"g": 9.0}}
    written_again(source, tmp_path / "a", source="import", path="elsewhere")
    written_again(source, tmp_path / "b", **pendulum)
    written_again(source, tmp_path / "c", expert="random", options={"g": 9.0})
    recipe = make_recipe()
    names = "abc" if imported_first else "bca"
    recipe.data.root = [tmp_path / name for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = open_data(recipe)
    assert opened.headers[PENDULUM].collection == pendulum
    assert opened.task_names == [PENDULUM] * 3
    assert sum(opened.weights) == pytest.approx(1)
    recipe.data.root = tmp_path / "a"
    assert open_data(recipe).headers[PENDULUM].collection["options"] == {}


def test_differing_options_of_a_task_are_said(make_recipe, shards, tmp_path):
    source = shards["root"] / PENDULUM
    written_again(source, tmp_path / "a", expert="swing-up", options={"g": 9.0})
    written_again(source, tmp_path / "b", expert="swing-up", options={"g": 11.0})
    recipe = make_recipe()
    recipe.data.root = tmp_path
    with pytest.warns(UserWarning, match=r"\{'g': 9.0\} in .*a and with \{'g': 11.0\} in .*b"):
        opened = open_data(recipe)
    assert opened.headers[PENDULUM].collection["options"] == {"g": 9.0}


def test_prompts_that_are_left_out_are_said(make_recipe, shards, tmp_path):
    data = TaskData(shards["root"] / PENDULUM)
    with ShardWriter(tmp_path / "data", data.header) as writer:
        for number, instruction in enumerate(("swing up", "swing down")):
            record = dict(data.record(number)) | {"instruction": instruction}
            parts = data.tokens(number), data.rewards(number), data.labels(number)
            writer.add(EncodedEpisode(*parts, record))
    recipe = make_recipe()
    recipe.data.root = tmp_path / "data"
    with pytest.warns(UserWarning, match=f"no other episode has the same.*{PENDULUM} 100%"):
        open_data(recipe)
    recipe.data.prompt_fraction = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_data(recipe)
