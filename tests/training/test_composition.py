"""What a batch is made of adds up, and is what the recipe asks for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from generalist.cli.main import main
from generalist.training.composition import compose
from tests.conftest import TinyRun


@pytest.mark.filterwarnings("ignore:Prompts are left out")
def test_shares_add_up_and_follow_the_weights(make_recipe) -> None:
    recipe = make_recipe()
    recipe.data.weights = {"gym/CartPole-v1": 3.0}
    recipe.data.episodes = {"gym/CartPole-v1": 1}
    recipe.loss.balance_tasks = True
    found = compose(recipe, rows=400)
    cartpole, pendulum = found.tasks
    assert (cartpole.name, cartpole.episodes, cartpole.available) == ("gym/CartPole-v1", 1, 2)
    assert (cartpole.weight, pendulum.weight) == (0.75, 0.25)
    assert cartpole.tokens == pytest.approx(0.75, abs=0.08)
    assert cartpole.loss == pytest.approx(0.75, abs=0.08)
    for key in ("weight", "tokens", "targets", "loss"):
        assert sum(getattr(part, key) for part in found.tasks) == pytest.approx(1)
    for part in found.tasks:  # the one episode of CartPole has no other to be shown for it
        share = part.prompted / part.segments, part.unmatched / part.segments
        expected = (0, 0.25) if part is cartpole else (0.25, 0)
        assert share == pytest.approx(expected, abs=0.05)
    (gym,) = found.families
    assert gym.segments == cartpole.segments + pendulum.segments
    assert (gym.episodes, gym.available, gym.weight) == (3, 4, 1.0)
    assert 0 <= found.padding < 0.3


def test_corrections_of_earlier_runs_take_their_share(make_recipe, shards, tmp_path) -> None:
    """They are no part of the data's episodes, so none is left out."""
    earlier = tmp_path / "corrections" / "round-1"
    shutil.copytree(shards["root"] / "gym/Pendulum-v1", earlier / "gym/Pendulum-v1")
    plain, taught = compose(make_recipe()), compose(make_recipe(corrections={"earlier": [earlier]}))
    for one, other in zip(plain.tasks, taught.tasks, strict=True):
        for key in ("name", "episodes", "available", "data_tokens", "weight"):
            assert getattr(one, key) == getattr(other, key)
        assert other.tokens == pytest.approx(one.tokens, abs=0.05)
    assert sum(part.loss for part in taught.tasks) == pytest.approx(1)


def test_inspect_shows_it(tiny_run: TinyRun, tmp_path: Path, capsys) -> None:
    result = tmp_path / "batch.json"
    command = ["inspect", str(tiny_run.data), "--recipe", str(tiny_run.recipe), "--rows", "64"]
    assert main([*command, "--json", str(result)]) == 0
    printed = capsys.readouterr().out
    assert "gym/Pendulum-v1" in printed and "padding" in printed and "family" in printed
    found = json.loads(result.read_text())
    assert [part["name"] for part in found["tasks"]] == list(tiny_run.tasks)
    assert main([*command, "--task", "gym/CartPole-v1"]) == 2
    assert "give one of them" in capsys.readouterr().err
