"""Checkpoints to act with: nothing is lost, and what is damaged or missing never acts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from generalist.acting.agent import Agent
from generalist.acting.rollout import rollout
from generalist.cli.main import main
from generalist.errors import GeneralistError, UsageError
from generalist.modeling.pretrained import start_model, with_sizes_of_start
from generalist.modeling.recipe import ModelRecipe
from generalist.tokenization.processor import GeneralistProcessor
from generalist.training.loop import train
from generalist.training.recipe import load_recipe
from tests.bits import flipped
from tests.conftest import TinyRun
from tests.decoding.models import tiny_agent

CARTPOLE, PENDULUM = "gym/CartPole-v1", "gym/Pendulum-v1"
WINDOW = 128  # what the tiny run is trained with


def saved(tmp_path: Path, **options: Any) -> Path:
    tiny_agent(CARTPOLE, **options).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def longest_context(agent: Agent, steps: int) -> int:
    """Tokens of the longest context over so many steps, greater than the windows tried here."""
    longest = 0
    for step in range(steps):
        agent.act(np.zeros(4, np.float32), first=step == 0)
        assert agent._running.decoder is not None
        longest = max(longest, len(agent._running.decoder.context(0)))
    return longest


# The window


@pytest.fixture(scope="module")
def trained_further(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint trained in windows of 64 from one that was made for 128."""
    folder = tmp_path_factory.mktemp("further")
    window = "data.window_tokens=64"
    overrides = [f"model.init_from={tiny_run.checkpoint}", f"output_dir={folder}", window]
    recipe = load_recipe(tiny_run.recipe, ["schedule.steps=1", *overrides])
    sizes = ["hidden_size", "intermediate_size", "layers", "heads"]
    stored = recipe.model_dump(mode="json")
    stored["model"] = {k: v for k, v in stored["model"].items() if k not in sizes}
    return train(type(recipe).model_validate(stored))


def test_the_window_is_what_was_trained_after_init_from(trained_further: Path) -> None:
    config = json.loads((trained_further / "config.json").read_text())
    assert config["max_position_embeddings"] == WINDOW, "positions are the source's"
    agent = Agent.from_pretrained(trained_further, CARTPOLE)
    assert agent.window_tokens == 64 == agent.for_task(PENDULUM).window_tokens
    assert 64 - agent.layout.tokens_per_timestep < longest_context(agent, 40) <= 64
    asked = Agent.from_pretrained(trained_further, CARTPOLE, window_tokens=96)
    assert 64 < longest_context(asked, 40) <= 96


def test_the_window_outlives_save_pretrained(trained_further: Path, tmp_path: Path) -> None:
    Agent.from_pretrained(trained_further, CARTPOLE).save_pretrained(tmp_path / "again")
    again = Agent.from_pretrained(tmp_path / "again", CARTPOLE)
    assert again.window_tokens == 64 and longest_context(again, 40) <= 64
    short = saved(tmp_path, window=128, window_tokens=48)
    assert longest_context(Agent.from_pretrained(short), 40) <= 48


# One writer


def test_a_saved_agent_keeps_all_that_training_left(tiny_run: TinyRun, tmp_path: Path) -> None:
    agent = Agent.from_pretrained(tiny_run.checkpoint, CARTPOLE)
    agent.save_pretrained(tmp_path / "saved")
    for path in sorted(p for p in tiny_run.checkpoint.rglob("*") if p.is_file()):
        name = path.relative_to(tiny_run.checkpoint)
        again = tmp_path / "saved" / name
        if name.suffix == ".json" and name.name != "manifest.json":
            assert json.loads(again.read_text()) == json.loads(path.read_text()), name
        elif name.suffix != ".json":
            assert again.read_bytes() == path.read_bytes(), name


@pytest.mark.parametrize("trained", [True, False])
def test_a_saved_agent_is_evaluated(trained: bool, tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    if trained:
        Agent.from_pretrained(tiny_run.checkpoint, CARTPOLE).save_pretrained(folder)
    else:
        tiny_agent(CARTPOLE).save_pretrained(folder)
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"tasks: [{{task: {CARTPOLE}, episodes: 2}}]\nvideos: false\n")
    out = tmp_path / "out"
    command = ["evaluate", str(suite), "--checkpoint", str(folder), "--out", str(out)]
    assert main([*command, "--workers", "0"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["training"]["parameters"]["total"] > 0
    assert "parameters, one set of weights" in (out / "report.html").read_text()
    if trained:
        assert "CartPole" in (folder / "README.md").read_text()


def test_saving_removes_nothing_but_an_older_checkpoint(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    tiny_agent(PENDULUM).save_pretrained(folder)
    assert Agent.from_pretrained(folder).task == PENDULUM
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="notes.txt"):
        tiny_agent(CARTPOLE).save_pretrained(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="is a file"):
        tiny_agent(CARTPOLE).save_pretrained(folder / "notes.txt")


# Weights


def change_weights(folder: Path, change: Any, manifest: bool = False) -> None:
    """Rewrite the weights, as a checkpoint without a manifest where it is not kept."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})
    if not manifest:
        (folder / "manifest.json").unlink()


KEY = "model.layers.1.mlp.down_proj.weight"


def test_missing_weights_are_named(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_weights(folder, lambda weights: weights.pop(KEY))
    with pytest.raises(GeneralistError, match=f"missing: {KEY}"):
        Agent.from_pretrained(folder)


def test_renamed_weights_are_named(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_weights(folder, lambda weights: weights.update({"model.down": weights.pop(KEY)}))
    with pytest.raises(GeneralistError, match=f"missing: {KEY}; too many: model.down"):
        Agent.from_pretrained(folder)


def test_weights_that_have_no_place_are_named(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_weights(folder, lambda weights: weights.update(more=torch.zeros(3)))
    with pytest.raises(GeneralistError, match="too many: more"):
        Agent.from_pretrained(folder)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_weights(folder, lambda weights: weights.update({KEY: torch.zeros(3, 3)}))
    with pytest.raises(GeneralistError, match="cannot be loaded"):
        Agent.from_pretrained(folder)


def test_all_weights_may_be_missing(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_weights(
        folder,
        lambda weights: [weights.update({f"x.{key}": weights.pop(key)}) for key in [*weights]],
    )
    with pytest.raises(
        GeneralistError, match="missing: .*and [0-9]+ more; too many: x.*and [0-9]+ more"
    ):
        Agent.from_pretrained(folder)


# Damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("whole"))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_of_any_file_is_named(whole: Path, data: st.DataObject) -> None:
    """In the manifest as well, where a change that says the same is none."""
    files = sorted(str(p.relative_to(whole)) for p in whole.rglob("*") if p.is_file())
    name = data.draw(st.sampled_from(files))
    path = whole / name
    content = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    path.write_bytes(flipped(content, bit))
    try:
        with pytest.raises(GeneralistError, match=f"{path}|{whole / 'manifest.json'}"):
            Agent.from_pretrained(whole)
    finally:
        path.write_bytes(content)


def test_training_does_not_start_from_a_damaged_checkpoint(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run.checkpoint, folder)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(flipped(content, 8 * (len(content) - 5)))
    recipe = with_sizes_of_start(ModelRecipe.model_validate({"init_from": str(folder)}))
    with pytest.raises(GeneralistError, match=str(weights)):
        start_model(recipe, GeneralistProcessor.from_pretrained(folder), 64)


def test_what_was_changed_on_purpose_acts_without_the_manifest(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_weights(folder, lambda weights: weights[KEY].add_(0.1), manifest=True)
    with pytest.raises(GeneralistError, match=f"remove {folder / 'manifest.json'}"):
        Agent.from_pretrained(folder)
    (folder / "manifest.json").unlink()
    rollout(Agent.from_pretrained(folder), episodes=1, progress=False)


# Where it runs


def test_a_device_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert Agent.from_pretrained(folder).model.device.type == expected
    for device in ("cuda:99", "abacus"):
        with pytest.raises(UsageError, match=f"device {device}: "):
            Agent.from_pretrained(folder, device=device)
