"""Recipes: overrides, errors that name the key, and every shipped file."""

from __future__ import annotations

import pytest

from generalist.errors import UsageError
from generalist.specs import list_specs, spec_folder
from generalist.training.recipe import Recipe, differences, dump_recipe, load_recipe


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("optimizer: {lr: 0.01}\nschedule: {steps: 5}\n")
    return path


def test_overrides_are_dotted_yaml(recipe_file):
    recipe = load_recipe(
        recipe_file,
        ["optimizer.lr=1e-4", "model.kv_heads=2", "data.weights.dmc/a.b-c=0.5", "trackers=[]"],
    )
    assert recipe.optimizer.lr == 1e-4 and recipe.model.kv_heads == 2
    assert recipe.data.weights == {"dmc/a.b-c": 0.5} and recipe.trackers == []
    assert recipe.schedule.steps == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.learning=1", r"optimizer\.learning"),
        ("optimiser.lr=1", r"optimiser.*optimizer"),
        ("optimizer.betass=[0.9, 0.9]", r"optimizer\.betass.*betas"),
        ("optimizer.lr=fast", r"optimizer\.lr"),
        ("optimizer.lr=-1", r"optimizer\.lr"),
        ("optimizer.lr", "key and a value"),
        ("optimizer.lr.peak=1", "no keys below"),
        ("model.heads=3", "multiple of heads"),
        ("schedule.steps=null", "needs an end"),
    ],
)
def test_a_wrong_key_or_value_is_one_sentence(recipe_file, override, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(recipe_file, [override])
    assert "\n" not in str(caught.value)


def test_the_dump_of_a_recipe_loads_as_the_same_recipe(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file, ["data.weights.gym/A=2", "data.context_steps.dmc/a.b=1"])
    assert recipe.data.context_steps == {"dmc/a.b": 1}
    (tmp_path / "dump.yaml").write_text(dump_recipe(recipe))
    again = load_recipe(tmp_path / "dump.yaml")
    assert again == recipe and differences(again, recipe) == []


def test_differences_name_what_changes_training_and_nothing_else(recipe_file):
    old = load_recipe(recipe_file)
    new = load_recipe(recipe_file, ["log_every=3", "output_dir=x", "data.window_tokens=8"])
    assert differences(old, new) == ["data.window_tokens: 512 -> 8"]


def test_how_the_checkpoint_acts_changes_training_where_it_is_corrected(recipe_file):
    colder = ["acting.temperature=0.5"]
    corrected = ["corrections.tasks={gym/A: {episodes: 2}}"]
    assert differences(load_recipe(recipe_file), load_recipe(recipe_file, colder)) == []
    old, new = load_recipe(recipe_file, corrected), load_recipe(recipe_file, corrected + colder)
    assert differences(old, new) == ["acting.temperature: 1.0 -> 0.5"]


@pytest.mark.parametrize("name", list_specs("recipes"))
def test_every_shipped_recipe_loads_and_says_how_to_run_it(name):
    path = spec_folder("recipes") / f"{name}.yaml"
    assert path.read_text().startswith(f"# generalist train {name}\n")
    assert load_recipe(name).data.window_tokens > 1


@pytest.mark.parametrize("name", list_specs("accelerate"))
def test_every_accelerate_config_says_how_to_launch_it(name):
    first = (spec_folder("accelerate") / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith(f"# accelerate launch --config_file recipes/accelerate/{name}.yaml")
    assert "-m generalist.training" in first


def test_every_key_is_documented():
    def check(model, path=""):
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                check(field.annotation, f"{path}{name}.")
            else:
                assert field.description, f"{path}{name} has no docstring"

    check(Recipe)
