"""The dial of sizes: what it sets, what it refuses, and that keys of one's own win."""

from __future__ import annotations

import pytest

from generalist.cli.main import main
from generalist.errors import UsageError
from generalist.training.plan import plan_run, vocabulary_size_of
from generalist.training.recipe import load_recipe
from generalist.training.sizes import SIZES, overrides_of, sized


@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_what_its_name_says(size: str) -> None:
    recipe = sized(load_recipe("quickstart", overrides_of(size, 60)), size)
    body = plan_run(recipe, vocabulary_size_of(recipe), None).parameters.body
    assert 0.8 < body / (1e6 * float(size[:-1])) < 1.25
    assert recipe.schedule.minutes == 60 and recipe.optimizer.lr == SIZES[size].lr
    assert recipe.model.hidden_size % recipe.model.heads == 0


def test_the_quickstarts_own_size_is_the_first() -> None:
    plain, first = load_recipe("quickstart"), load_recipe("quickstart", overrides_of("1m"))
    assert plain == first


def test_unknown_sizes_and_recipes_of_another_kind_are_refused() -> None:
    with pytest.raises(UsageError, match="1m, 3m, 10m"):
        overrides_of("7b")
    with pytest.raises(UsageError, match="compact form, by Muon"):
        sized(load_recipe("flat", overrides_of("3m")), "3m")


def test_the_command_takes_a_size_without_a_recipe(tmp_path, capsys) -> None:
    told = ["train", "--size", "3m", "--minutes", "5", "--plan"]
    assert main([*told, "--json", str(tmp_path / "a.json")]) == 0
    # keys of one's own come after the size's
    assert main([*told, "model.layers=1", "--json", str(tmp_path / "b.json")]) == 0
    assert (tmp_path / "a.json").read_text() != (tmp_path / "b.json").read_text()
    capsys.readouterr()
    assert main(["train", "flat", "--size", "3m"]) == 2
    assert "Set the keys of this recipe" in capsys.readouterr().err
