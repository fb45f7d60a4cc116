"""Self-play from a clone's checkpoint, with its demonstrations imitated beside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.keeping import measure
from generalist.acting.agent import Agent
from generalist.acting.rollout import rollout
from generalist.errors import GeneralistError, UsageError
from generalist.tokenization.processor import GeneralistProcessor
from generalist.training.loop import TrainingInterrupted, train
from generalist.training.selfplay.recipe import SelfplayRecipe
from generalist.training.selfplay.run import SelfplayRun, selfplay
from generalist.training.selfplay.start import start
from tests.training.conftest import TASKS, recipe_for
from tests.training.selfplay.test_run import SMALL, StopAfter

pytest.importorskip("pyspiel")

BOARDS = ["TicTacToe", "Hex-3x3"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2}


@pytest.fixture(scope="module")
def clone(shards: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that has seen demonstrations of two tasks, and no boards."""
    folder = tmp_path_factory.mktemp("clone") / "run"
    model = {**SIZES, "form": "compact", "embedders": {"positions": 1, "width": 4}}
    return train(recipe_for(shards, model=model, output_dir=folder))


def recipe(folder: Path, source: Path, **changes: object) -> SelfplayRecipe:
    values = {
        **SMALL, "boards": BOARDS, "side": None, "output_dir": folder,
        "model": {"init_from": str(source)}, "imitation": {"rows": 3}, "length": {"games": 30},
    }  # fmt: skip
    return SelfplayRecipe.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def kept(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("kept") / "whole"
    selfplay(recipe(folder, clone))
    return folder


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """All weights of the final checkpoint."""
    files = ("model.safetensors", "generalist/embedders.safetensors")
    return {
        f"{file}/{name}": each
        for file in files
        for name, each in load_file(run / "checkpoint" / file).items()
    }


def test_a_resumed_run_equals_one_that_was_not_interrupted(
    clone: Path, kept: Path, tmp_path: Path
) -> None:
    settings = recipe(tmp_path / "resumed", clone)
    with SelfplayRun(settings, start(settings)) as run:
        settings.output_dir.mkdir()
        with pytest.raises(TrainingInterrupted):
            run.run(StopAfter(6))
        assert 0 < run.state.games < 30 and run.state.steps > 0
    selfplay(settings)
    one, other = tensors(kept), tensors(tmp_path / "resumed")
    assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
    with pytest.raises(GeneralistError, match="other imitation"):
        selfplay(recipe(tmp_path / "resumed", clone, imitation=None))


def test_the_checkpoint_acts_in_all_its_tasks(clone: Path, kept: Path) -> None:
    known = Agent.from_pretrained(kept / "checkpoint", "board/TicTacToe").layouts
    assert set(known) == {*TASKS, *(f"board/{name}" for name in BOARDS)}
    agent = Agent.from_pretrained(kept / "checkpoint", TASKS[1])
    before = Agent.from_pretrained(clone, TASKS[1])
    assert agent.origin.settings["environments"] == before.origin.settings["environments"]
    assert rollout(agent, episodes=1, max_steps=20, progress=False).episodes == 1
    agent = Agent.from_pretrained(kept / "checkpoint", "board/TicTacToe")
    plan = "tree:simulations=4"
    assert rollout(agent, episodes=1, plan=plan, opponent="random", progress=False).episodes == 1


def test_demonstrations_are_learned_beside_the_boards(
    clone: Path, kept: Path, shards: dict[str, Path], tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (kept / "log.jsonl").read_text().splitlines()]
    assert {f"imitation/{task}" for task in TASKS} <= {key for row in rows for key in row}
    selfplay(recipe(tmp_path / "alone", clone, imitation=None))
    folders = [clone, kept / "checkpoint", tmp_path / "alone/checkpoint"]
    for before, with_, without in measure(folders, shards["root"], 16).values():
        assert with_ < min(before, without)
    # The bins of actions are no rows of boards: they move with imitation alone.
    bins = GeneralistProcessor.default().vocabulary["continuous"]
    before, with_, without = (
        load_file(folder / "model.safetensors")["model.embed_tokens.weight"][bins.start : bins.stop]
        for folder in folders
    )
    assert not torch.equal(with_, before) and torch.equal(without, before)


def recipe_of(clone: Path) -> str:
    return str(clone / "generalist/recipe.yaml")


@pytest.mark.parametrize("imitation", [None, {"rows": 1}])
def test_a_clone_begins_without_an_opinion_of_who_wins(
    clone: Path, tmp_path: Path, imitation: dict | None
) -> None:
    parts = start(recipe(tmp_path, clone, imitation=imitation))
    boards = parts.boards
    games = [0, 1]
    _, values = parts.judge.judge(boards.look(games, [boards.views[n].start() for n in games]))
    assert np.abs(values).max() < 0.1


def test_whole_tables_and_rows_of_their_own_judge_alike(clone: Path, tmp_path: Path) -> None:
    found = []
    for imitation in (None, {"rows": 1}):
        parts = start(recipe(tmp_path, clone, imitation=imitation))
        seen = parts.boards.look([0, 1], [view.start() for view in parts.boards.views])
        found.append(parts.judge.judge(seen))
    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))


def test_bad_input_is_refused_in_words(clone: Path, kept: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="say which by model.init_from"):
        recipe(tmp_path, clone, model=SMALL["model"])
    played = recipe(tmp_path / "a", kept / "checkpoint")
    with pytest.raises(UsageError, match="recipe.yaml is none.*Name one by imitation.recipe"):
        SelfplayRun(played, start(played))
    data = {"recipe": recipe_of(clone), "data": str(kept / "data")}
    others = recipe(tmp_path / "b", clone, boards=["TicTacToe"], imitation=data)
    with pytest.raises(UsageError, match="does not know board/Hex-3x3.*imitation.data"):
        SelfplayRun(others, start(others))
    gone = recipe(tmp_path / "c", clone, imitation={"data": str(tmp_path / "nothing")})
    with pytest.raises(GeneralistError, match="holds no dataset"):
        SelfplayRun(gone, start(gone))
    with pytest.raises(UsageError, match="no checkpoint in the compact form"):
        start(recipe(tmp_path / "d", tmp_path))
