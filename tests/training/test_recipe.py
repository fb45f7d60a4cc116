"""Recipes: overrides, errors that name the key, and every shipped file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from generalist.acting.hub import SHIPPED
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


ODD = ["seed #2", "2024-01-01", "007", "1e3", "yes", "null", "Null", ".", "a: b", "[a]", "{a}"]
# A folder of any name, and of the user's own home; a URL is not a path.
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
names = (st.sampled_from(ODD) | names).filter(lambda name: "://" not in name and name[0] != "~")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=names, home=st.booleans())
def test_a_path_is_what_is_written_but_for_the_home_folder(recipe_file, name, home):
    assume(not (home and name.startswith("/")))  # ~//a is no way to write a path
    given, expected = (f"~/{name}", Path.home() / name) if home else (name, Path(name))
    recipe = load_recipe(recipe_file, [f"output_dir={given}", f"data.cache=./{name}"])
    assert recipe.output_dir == expected and recipe.data.cache == Path(f"./{name}")
    text = yaml.safe_dump({"output_dir": given, "data": {"root": [given, "b"]}})
    recipe_file.with_name("names.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(recipe_file.with_name("names.yaml"))
    assert recipe.output_dir == expected and recipe.data.root == [expected, Path("b")]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("output_dir=seed #2", Path("seed #2")),
        ("output_dir=null", Path("null")),
        ("output_dir=~", Path.home()),
        ("data.root=~/a", Path.home() / "a"),
        ("data.root=[~/a, 2024-01-01]", [Path.home() / "a", Path("2024-01-01")]),
        ("data.root=s3://bucket//a", "s3://bucket//a"),
        ("data.processor=null", None),
        ("data.processor=NULL", Path("NULL")),
        ("model.init_from=~/a", str(Path.home() / "a")),
        ("model.init_from=7", "7"),
        (f"model.init_from={SHIPPED}", str(spec_folder("checkpoints") / SHIPPED)),
        ("trackers=[on, 1.5]", ["on", "1.5"]),
        ("corrections.tasks.gym/A.b={episodes: 1, expert: yes}", "yes"),
        ("schedule.steps=0100", 100),
    ],
)
def test_texts_are_what_is_written_and_numbers_decimal(recipe_file, override, expected):
    value = load_recipe(recipe_file, [override])
    for key in override.partition("=")[0].split(".")[:2]:
        value = getattr(value, key)
    if "corrections" in override:
        value = value["gym/A.b"].expert
    assert value == expected


def test_a_file_may_name_paths_that_look_like_something_else(tmp_path):
    text = "output_dir: 2024-01-01\ndata: {root: [007, ~/x], processor: ~, cache: yes}\n"
    (tmp_path / "mine.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert recipe.output_dir == Path("2024-01-01")
    assert recipe.data.root == [Path("007"), Path.home() / "x"]
    assert recipe.data.processor is None and recipe.data.cache == Path("yes")


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
        ("corrections.rounds=101", r"corrections\.rounds is 101, expected 100 or less"),
        ("corrections.tasks.gym/A.episodes=1001", r"episodes is 1001, expected 1000 or less"),
        ("output_dir=", r"output_dir is ''"),
        ("data.root=[a, b #2]", r"data\.root is '\[a, b #2\]', which is not valid YAML"),
        ("data.context_steps=x", r"data\.context_steps is 'x', expected a whole number or keys"),
        ("data.context_steps={a: x}", r": data\.context_steps\.a is 'x', expected a whole number"),
        ("schedule.steps=yes", r"schedule\.steps is 'yes', expected a whole number"),
        ("optimizer.lr=2024-13-45", r"optimizer\.lr is '2024-13-45'"),
        ("precision=no", r"precision is 'no', expected 'auto', 'fp32' or 'bf16'"),
        ("trackers=tensorboard", r"trackers is 'tensorboard', expected a list"),
    ],
)
def test_a_wrong_key_or_value_is_one_sentence(recipe_file, override, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(recipe_file, [override])
    assert "\n" not in str(caught.value) and "Input" not in str(caught.value)


def test_the_dump_of_a_recipe_loads_as_the_same_recipe(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file, ["data.weights.gym/A=2", "data.context_steps.dmc/a.b=1"])
    assert recipe.data.context_steps == {"dmc/a.b": 1}
    (tmp_path / "dump.yaml").write_text(dump_recipe(recipe))
    again = load_recipe(tmp_path / "dump.yaml")
    assert again == recipe and differences(again, recipe) == []


def test_differences_name_what_changes_training_and_nothing_else(recipe_file):
    old = load_recipe(recipe_file)
    free = ["log_every=3", "output_dir=x", "data.workers=2"]
    new = load_recipe(recipe_file, [*free, "data.window_tokens=8"])
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
    text = (spec_folder("accelerate") / f"{name}.yaml").read_text()
    first = text.splitlines()[0]
    assert first.startswith(f"# accelerate launch --config_file $(generalist recipe {name})")
    assert "-m generalist.training" in first
    # A file that it names would be sought in the folder the user is in.
    assert not [key for key in yaml.safe_load(text).get("deepspeed_config", {}) if "file" in key]


def test_every_key_is_documented():
    def check(model, path=""):
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                check(field.annotation, f"{path}{name}.")
            else:
                assert field.description, f"{path}{name} has no docstring"

    check(Recipe)
