"""Checkpoints are whole or not there, and a damaged one is passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from generalist import integrity
from generalist.integrity import MANIFEST, verify
from generalist.training import checkpoint
from generalist.training.checkpoint import (
    RunState,
    Snapshot,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    random_states,
    save_checkpoint,
    set_random_states,
)


def snapshot(step: int = 1) -> Snapshot:
    """A small one, other for every step."""
    generator = torch.Generator().manual_seed(step)
    weights = {"a": torch.randn(3, 2, generator=generator), "b": torch.ones(4)}
    moments = {f"exp_avg/{name}": torch.rand_like(value) for name, value in weights.items()}
    return Snapshot(
        state=RunState(step, 1.5, 1, 2), weights=weights, moments=moments, random=random_states()
    )


WHAT = {"recipe_yaml": "a: 1\n", "data": {"tasks": []}}


def save(root: Path, step: int, keep: int = 2) -> Path:
    return save_checkpoint(root, snapshot(step), **WHAT, keep=keep)


def test_what_is_saved_comes_back(tmp_path):
    saved = snapshot(7)
    drawn = torch.rand(3)
    loaded = load_checkpoint(save_checkpoint(tmp_path, saved, **WHAT, keep=2))
    assert loaded.state == saved.state
    for name in ("weights", "moments", "random"):
        one, other = getattr(saved, name), getattr(loaded, name)
        assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    set_random_states(loaded.random)
    assert torch.equal(torch.rand(3), drawn)


def files_of_a_checkpoint() -> list[str]:
    return [
        checkpoint.MODEL,
        checkpoint.OPTIMIZER,
        checkpoint.RANDOM,
        checkpoint.STATE,
        checkpoint.DATA,
        checkpoint.RECIPE,
        MANIFEST,
    ]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
@pytest.mark.parametrize("name", files_of_a_checkpoint())
def test_a_damaged_checkpoint_is_passed_over(tmp_path, name, damage):
    older = save(tmp_path, 1)
    newer = save(tmp_path, 2)
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
    with pytest.warns(UserWarning, match=f"left out.*{name}"):
        assert newest_checkpoint(tmp_path) == older


def test_old_ones_go_only_after_the_new_one_is_there(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == [
        "step-00000003",
        "step-00000002",
    ]

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(integrity, "_write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 4, keep=1)
    assert newest_checkpoint(tmp_path) == tmp_path / "step-00000003"
    assert len(list_checkpoints(tmp_path)) == 2


def test_a_removal_that_is_cut_short_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 1, keep=1)

    def killed(folder, ignore_errors=False):
        if folder.exists():
            next(iter(sorted(folder.iterdir()))).unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2, keep=1)
    monkeypatch.undo()
    for folder in list_checkpoints(tmp_path):
        verify(folder)
    save(tmp_path, 3, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_a_replacement_that_is_cut_short_loses_nothing(tmp_path, monkeypatch):
    """The end of a run by the clock may save a step again: killed between the two renames."""
    folder = save(tmp_path, 3, keep=1)
    real, calls = os.rename, []

    def killed(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 3, keep=1)
    monkeypatch.undo()
    assert not folder.exists()
    assert newest_checkpoint(tmp_path) == folder
