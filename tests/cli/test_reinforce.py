"""`generalist reinforce`: a recipe that plays, and one that does not."""

from __future__ import annotations

import pytest
import yaml

from generalist.cli.main import main
from generalist.specs import find_spec
from generalist.training.recipe import load_recipe

RECIPES = sorted(
    f"reinforce/{path.stem}" for path in find_spec("recipes", "reinforce/minatar").parent.iterdir()
)


def test_learns_and_the_checkpoint_acts(tmp_path, capsys):
    recipe = {
        "model": {"form": "compact", "hidden_size": 16, "intermediate_size": 32, "layers": 1,
                  "heads": 2},
        "data": {"window_tokens": 16, "context_steps": 1},
        "reinforcement": {"tasks": {"gym/CartPole-v1": {"environments": 4}}, "unroll": 4},
        "schedule": {"steps": 8}, "trackers": [], "cores": 1,
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    played = tmp_path / "played"
    options = [f"output_dir={tmp_path / 'run'}", "--record", str(played)]
    assert main(["reinforce", str(path), *options]) == 0
    assert main(["validate", str(played)]) == 0
    folder = str(tmp_path / "run" / "checkpoint")
    capsys.readouterr()
    assert main(["rollout", "gym", "CartPole-v1", "--checkpoint", folder, "--episodes", "1"]) == 0


def test_a_recipe_without_tasks_to_play_is_refused(capsys):
    assert main(["reinforce", "quickstart"]) == 2
    assert "has no section `reinforcement`" in " ".join(capsys.readouterr().err.split())


def test_a_cluster_without_actors_is_refused(capsys):
    assert main(["reinforce", "reinforce/minatar", "--ray", "local"]) == 2
    assert "set actors to 1 or more" in " ".join(capsys.readouterr().err.split())


def test_an_unknown_key_names_the_nearest(capsys):
    assert main(["reinforce", "reinforce/minatar", "reinforcement.unrol=5"]) == 2
    assert "unroll" in capsys.readouterr().err


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_recipe_is_valid(name):
    assert load_recipe(name).reinforcement is not None


def test_a_plan_of_what_is_played_is_refused(capsys):
    assert main(["train", "reinforce/minatar", "--plan"]) == 2
    assert "--plan counts what demonstrations take" in " ".join(capsys.readouterr().err.split())
