"""Checkpoints are whole or not there, and a damaged one is passed over."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from generalist.errors import GeneralistError
from generalist.modeling.build import build_model
from generalist.training import checkpoint
from generalist.training.checkpoint import (
    RunState,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    verify,
    write_folder,
)
from generalist.training.optimizer import build_optimizers
from generalist.training.recipe import ModelRecipe, OptimizerRecipe
from generalist.vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    [("text", 32), ("special", 32), ("continuous", 32), ("discrete", 8), ("image", 8)]
)


def small(seed: int, tie: bool = True, name: str = "adamw"):
    recipe = ModelRecipe(hidden_size=8, intermediate_size=8, layers=1, heads=2, tie_embeddings=tie)
    model = build_model(recipe, VOCABULARY, 16, seed)
    optimizers = build_optimizers(model, OptimizerRecipe(name=name))
    return model, optimizers


def one_step(model, optimizers) -> None:
    ids = torch.arange(10)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_save_and_load_give_the_same_next_step(tmp_path, tie, name):
    model, optimizers = small(0, tie, name)
    one_step(model, optimizers)
    state = RunState(step=7, elapsed_seconds=1.5, skipped=1)
    folder = save_checkpoint(tmp_path, state, model, optimizers, "a: 1\n", keep=2)
    other, other_optimizers = small(1, tie, name)
    assert load_checkpoint(folder, other, other_optimizers) == state
    drawn = torch.rand(3)
    for pair in ((model, optimizers), (other, other_optimizers)):
        one_step(*pair)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    load_checkpoint(folder, other, other_optimizers)
    assert torch.equal(torch.rand(3), drawn)  # the random state came back too


def files_of_a_checkpoint() -> list[str]:
    return [
        checkpoint.MODEL,
        checkpoint.OPTIMIZER,
        checkpoint.RANDOM,
        checkpoint.STATE,
        checkpoint.RECIPE,
        checkpoint.MANIFEST,
    ]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
@pytest.mark.parametrize("name", files_of_a_checkpoint())
def test_a_damaged_checkpoint_is_passed_over(tmp_path, name, damage):
    model, optimizers = small(0)
    one_step(model, optimizers)
    older = save_checkpoint(tmp_path, RunState(step=1), model, optimizers, "a: 1\n", keep=2)
    newer = save_checkpoint(tmp_path, RunState(step=2), model, optimizers, "a: 1\n", keep=2)
    assert newest_checkpoint(tmp_path) == newer
    path = newer / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.warns(UserWarning, match="left out"):
        assert newest_checkpoint(tmp_path) == older


def test_old_ones_go_only_after_the_new_one_is_there(tmp_path, monkeypatch):
    model, optimizers = small(0)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, RunState(step=step), model, optimizers, "", keep=2)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == [
        "step-00000003",
        "step-00000002",
    ]

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "_write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, RunState(step=4), model, optimizers, "", keep=1)
    assert newest_checkpoint(tmp_path) == tmp_path / "step-00000003"
    assert len(list_checkpoints(tmp_path)) == 2


def test_a_full_disk_is_one_sentence_and_keeps_the_older_folder(tmp_path):
    folder = tmp_path / "step-00000001"
    write_folder(folder, lambda target: (target / "a").write_text("old"))

    def full(target: Path) -> None:
        (target / "a").write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(GeneralistError, match="No space left.*same command"):
        write_folder(folder, full)
    assert (folder / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_the_card_may_change_without_breaking_the_manifest(tmp_path):
    folder = tmp_path / "final"
    write_folder(folder, lambda target: (target / "README.md").write_text("no scores"))
    (folder / "README.md").write_text("scores")
    assert verify(folder) is None


def test_another_model_is_refused(tmp_path):
    model, optimizers = small(0)
    one_step(model, optimizers)
    folder = save_checkpoint(tmp_path, RunState(step=1), model, optimizers, "", keep=1)
    other, other_optimizers = small(0, tie=False)
    with pytest.raises(GeneralistError, match="another model"):
        load_checkpoint(folder, other, other_optimizers)
