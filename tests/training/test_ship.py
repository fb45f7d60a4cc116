"""A checkpoint to give away: half the bytes, the same actions, a card that says how it was made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from generalist.acting.agent import Agent
from generalist.acting.hub import REPLAY, SHIPPED, checkpoint_folder
from generalist.cli.main import main
from generalist.errors import GeneralistError, UsageError
from generalist.integrity import verify
from generalist.specs import shipped_checkpoint, spec_folder
from generalist.training.card import card_scores, license_card, write_model_card
from generalist.training.recipe import Recipe, dump_recipe
from generalist.training.ship import ship, without_own_folders
from tests.conftest import TinyRun

TASK = "gym/CartPole-v1"
MOST_BYTES = 12_000_000


@pytest.fixture(scope="module")
def source(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with scores on its card."""
    folder = tmp_path_factory.mktemp("ship") / "source"
    shutil.copytree(tiny_run.checkpoint, folder)
    scores = {"suite": "tiny", "mean": 31.5, "interval": (20.25, 42.75), "episodes": 20}
    write_model_card(folder, {TASK: scores})
    return folder


@pytest.fixture(scope="module")
def shipped(source: Path) -> Path:
    folder = source.with_name("given")
    ship(source, folder)
    return folder


def test_the_copy_differs_by_rounding_alone(source: Path, shipped: Path) -> None:
    verify(shipped)
    ours, theirs = (Agent.from_pretrained(each, TASK) for each in (shipped, source))
    before = theirs.model.state_dict()
    for name, weight in ours.model.state_dict().items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, before[name].to(torch.bfloat16).float(), rtol=0, atol=0)
    assert ours.layouts.keys() == theirs.layouts.keys()
    assert ours.temperature == theirs.temperature and ours.context_steps == theirs.context_steps


def test_its_weights_take_half_the_bytes(source: Path, shipped: Path) -> None:
    one, other = ((each / "model.safetensors").stat().st_size for each in (shipped, source))
    assert one < 0.55 * other


def test_the_card_says_licence_recipe_rounding_and_scores(shipped: Path) -> None:
    card = (shipped / "README.md").read_text()
    assert "license: apache-2.0" in card and "The weights: Apache-2.0." in card
    assert "Made by the recipe `" in card and "with other values of" in card
    assert "rounded to bfloat16, 16 bits each" in card
    assert "Measured before the weights were rounded to bfloat16." in card
    assert "## Inputs and outputs" in card and f"| `{TASK}` | `observation`: float32 4" in card
    assert card.endswith("## Licence\n\nThe weights: Apache-2.0.\n")
    row = card_scores(card)[TASK, "tiny"]
    assert row["mean"] == "31.5" and row["interval"] == "[20.2, 42.8]"


def test_scores_of_the_copy_itself_replace_the_others(shipped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(shipped, folder)
    write_model_card(folder, {TASK: {"suite": "tiny", "mean": 32.5, "episodes": 20}})
    card = (folder / "README.md").read_text()
    assert "Measured before" not in card
    assert card_scores(card)[TASK, "tiny"]["mean"] == "32.5"


def test_it_replaces_nothing_but_a_checkpoint(source: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="thesis.tex"):
        ship(source, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_the_one_that_ships_is_small_whole_and_says_what_it_is() -> None:
    folder = spec_folder("checkpoints") / SHIPPED
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert not [path for path in files if path.stat().st_size > 5 * 2**20]
    verify(folder)
    card = (folder / "README.md").read_text()
    assert "license: apache-2.0" in card and "Made by the recipe `catalogue`" in card
    assert f'from_pretrained("{SHIPPED}"' in card
    acted = [row for row in card_scores(card).values() if row["mean"]]
    assert len(acted) >= 9
    assert all(row["interval"].startswith("[") for row in acted)


def test_a_shipped_name_is_found_and_a_folder_of_that_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_checkpoint(SHIPPED) and not shipped_checkpoint(f"someone/{SHIPPED}")
    assert checkpoint_folder(SHIPPED) == spec_folder("checkpoints") / SHIPPED
    assert checkpoint_folder(Path(SHIPPED)) == spec_folder("checkpoints") / SHIPPED
    (tmp_path / SHIPPED).mkdir()
    assert checkpoint_folder(SHIPPED) == Path(SHIPPED)


def test_an_unknown_name_is_told_what_ships(tmp_path: Path) -> None:
    with pytest.raises(GeneralistError, match="ship with the package: .*catalogue"):
        Agent.from_pretrained(tmp_path / "catalgue")


def test_folders_of_the_machine_do_not_travel():
    recipe = Recipe.model_validate(
        {
            "data": {"root": "/home/me/data", "processor": "tokenizers/mine"},
            "output_dir": "/tmp/run",
        }
    )
    given = Recipe.model_validate(yaml.safe_load(without_own_folders(dump_recipe(recipe))))
    assert str(given.data.root) == "data/quickstart" and str(given.output_dir) == "runs/quickstart"
    assert str(given.data.processor) == "tokenizers/mine"
    recipe.data.root = [Path("data/ours"), Path("/home/me/data")]
    recipe.corrections.earlier = [Path("/home/me/runs/first/corrections")]
    given = Recipe.model_validate(yaml.safe_load(without_own_folders(dump_recipe(recipe))))
    assert str(given.data.root) == "data/quickstart" and given.corrections.earlier == []


def test_the_checkpoint_that_ships_names_no_folder_of_a_machine():
    text = (spec_folder("checkpoints") / SHIPPED / "generalist/recipe.yaml").read_text()
    assert without_own_folders(text) == text


def test_another_licence_replaces_the_first_and_scores_stay(shipped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(shipped, folder)
    license_card(folder, "MIT")
    card = (folder / "README.md").read_text()
    assert ModelCard(card).data.license == "mit" and card.count("## Licence") == 1
    assert "The weights: MIT." in card and "Apache" not in card
    assert card_scores(card) == card_scores((shipped / "README.md").read_text())
    verify(folder)


def test_a_card_without_metadata_takes_no_licence(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# mine\n")
    with pytest.raises(GeneralistError, match="no card with metadata"):
        license_card(tmp_path, "MIT")


def test_a_replay_is_on_the_card_and_small(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    assert main(["export", str(source), str(folder), "--replay"]) == 0
    picture = folder / REPLAY
    assert picture.read_bytes()[8:12] == b"WEBP" and picture.stat().st_size <= 2_000_000
    card = (folder / "README.md").read_text()
    assert f"]({REPLAY})" in card and card.index("## Replay") < card.index("## Scores")
    verify(folder)
    ship(source, folder)  # may be replaced like any other checkpoint
    assert not picture.exists()
