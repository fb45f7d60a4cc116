"""One flipped bit of any file of a checkpoint: the older one is taken, and the file is named."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from generalist.errors import GeneralistError
from generalist.integrity import MANIFEST, verify
from generalist.training import checkpoint
from generalist.training.checkpoint import (
    RunState,
    Snapshot,
    list_checkpoints,
    newest_checkpoint,
    random_states,
    save_checkpoint,
)
from generalist.training.loop import train
from generalist.training.recipe import dump_recipe
from generalist.training.resume import checkpoint_to_continue
from tests.bits import every_bit, flipped
from tests.conftest import TinyRun

ALL_BITS = [pytest.mark.slow, pytest.mark.timeout(3600)]
EVERY = [173, pytest.param(1, marks=ALL_BITS)]  # each of so many bits
TEXTS = [MANIFEST, checkpoint.STATE, checkpoint.DATA, checkpoint.RECIPE]
TENSORS = [checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.RANDOM]


@pytest.fixture
def two(make_recipe, data, tmp_path: Path) -> tuple[Path, Path]:
    """An older and a newer checkpoint with little in them but what is text."""
    recipe = dump_recipe(make_recipe())
    weights = {"a": torch.ones(3, 2)}
    for step in (3, 6):
        snapshot = Snapshot(
            state=RunState(step), weights=weights, moments=weights, random=random_states()
        )
        what = {"recipe_yaml": recipe, "data": data.facts()}
        save_checkpoint(tmp_path / "checkpoints", snapshot, **what, keep=2)
    newer, older = list_checkpoints(tmp_path / "checkpoints")
    return newer, older


def taken(root: Path) -> tuple[Path | None, str]:
    """The checkpoint that a run would go on from, and what is said of others."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = newest_checkpoint(root)
    return found, " ".join(str(warning.message) for warning in caught)


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("name", TEXTS)
def test_the_older_checkpoint_is_taken(two: tuple[Path, Path], name: str, every: int) -> None:
    newer, older = two
    path = newer / name
    written = path.read_bytes()
    for damaged in every_bit(written, every):
        path.write_bytes(damaged)
        found, said = taken(newer.parent)
        if found == older:
            assert "left out" in said and str(path if name != MANIFEST else newer) in said
        else:
            assert found == newer and name == MANIFEST and not said
            assert json.loads(damaged) == json.loads(written), "white space alone"
    path.write_bytes(written)
    assert taken(newer.parent) == (newer, "")


@pytest.mark.parametrize("name", TENSORS)
def test_of_tensors_too(two: tuple[Path, Path], name: str) -> None:
    newer, older = two
    path = newer / name
    for damaged in every_bit(path.read_bytes(), 977):
        path.write_bytes(damaged)
        found, said = taken(newer.parent)
        assert found == older and str(path) in said


@pytest.mark.parametrize("form", ["[]", '{"files": []}', '{"files": {"a": 1}}', '{"file": {}}'])
def test_a_manifest_of_another_form_is_left_out(two: tuple[Path, Path], form: str) -> None:
    newer, older = two
    (newer / MANIFEST).write_text(form)
    found, said = taken(newer.parent)
    assert found == older and MANIFEST in said


def test_a_run_goes_on_from_the_older_checkpoint(make_recipe, data) -> None:
    recipe = make_recipe()
    train(recipe, data)
    newer, older = list_checkpoints(recipe.output_dir / "checkpoints")
    for name in (*TEXTS, *TENSORS):
        path = newer / name
        written = path.read_bytes()
        path.write_bytes(flipped(written, 4 * len(written)))
        with pytest.warns(UserWarning, match=f"left out.*{name}"):
            assert checkpoint_to_continue(recipe, data, source=None, allow_changes=False) == older
        with pytest.raises(GeneralistError, match=f"cannot be continued.*{name}"):
            checkpoint_to_continue(recipe, data, source=newer, allow_changes=False)
        path.write_bytes(written)
    (newer / checkpoint.STATE).write_text("{}")
    with pytest.warns(UserWarning, match="left out"):
        train(recipe, data)
    assert newest_checkpoint(newer.parent) == newer, "the steps were done again"


def texts_of(folder: Path) -> list[str]:
    """Every file of an exported checkpoint that is JSON or YAML."""
    found = [*folder.rglob("*.json"), *folder.rglob("*.yaml")]
    return sorted(str(path.relative_to(folder)) for path in found)


@pytest.mark.parametrize("every", EVERY)
def test_every_text_of_an_exported_checkpoint_is_named(
    tiny_run: TinyRun, tmp_path: Path, every: int
) -> None:
    folder = Path(shutil.copytree(tiny_run.checkpoint, tmp_path / "checkpoint"))
    names = texts_of(folder)
    assert {"config.json", "generalist/recipe.yaml", "generalist/tokenizer.json"} < set(names)
    for name in names:
        path = folder / name
        written = path.read_bytes()
        step = every * (1 + len(written) // 10_000)  # the tokenizer's alone has millions
        for damaged in every_bit(written, step):
            path.write_bytes(damaged)
            try:
                verify(folder)
            except GeneralistError as error:
                assert str(path) in str(error) or name == MANIFEST
            else:
                assert name == MANIFEST and json.loads(damaged) == json.loads(written)
        path.write_bytes(written)
    verify(folder)
    assert os.listdir(tmp_path) == ["checkpoint"]
