from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from generalist import specs
from generalist.errors import UsageError
from generalist.specs import find_spec, list_specs, load_yaml
from generalist.windows.spec import DatasetSpec, load_dataset_spec


class Optimizer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lr: float = Field(1e-3, gt=0)


class Step(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid")
    optimizer: Optimizer = Optimizer()
    again: Optimizer | None = None
    steps: list[Step] = []


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as a wheel lays it out: no pyproject.toml beside it, specs inside."""
    package = tmp_path / "site-packages" / "generalist"
    (package / "_specs" / "datasets").mkdir(parents=True)
    (package / "_specs" / "datasets" / "packed.yaml").write_text("tasks: []\n")
    (package / "_specs" / "recipes" / "accelerate").mkdir(parents=True)
    (package / "_specs" / "recipes" / "accelerate" / "ddp.yaml").write_text("")
    (tmp_path / "site-packages" / "datasets").mkdir()  # Hugging Face's, which must not be taken
    monkeypatch.setattr(specs, "_PACKAGE", package)
    return package


def test_names_resolve_in_a_clone() -> None:
    assert {"quickstart", "laptop"} <= set(list_specs("datasets"))
    assert find_spec("datasets", "quickstart").name == "quickstart.yaml"
    assert find_spec("datasets", "quickstart.yaml") == find_spec("datasets", "quickstart")
    assert find_spec("tokenizers", "text").is_dir()


def test_names_resolve_in_an_installed_package(installed: Path) -> None:
    assert list_specs("datasets") == ["packed"]
    assert find_spec("datasets", "packed") == installed / "_specs/datasets/packed.yaml"
    assert find_spec("recipes/accelerate", "ddp") == find_spec("accelerate", "ddp")


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "quickstart.yaml"
    mine.write_text("tasks: []\n")
    assert find_spec("datasets", mine) == mine
    monkeypatch.chdir(tmp_path)
    assert find_spec("datasets", "quickstart.yaml") == Path("quickstart.yaml")
    # A folder that happens to have the name of a tokenizer is not the tokenizer.
    (tmp_path / "text").mkdir()
    assert find_spec("tokenizers", "text").is_absolute()
    assert find_spec("tokenizers", tmp_path / "text") == tmp_path / "text"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as error:
        find_spec("datasets", "quickstrat")
    assert "did you mean 'quickstart'" in str(error.value) and "laptop" in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer: {lrr: 1}", ["unknown key optimizer.lrr", "did you mean 'lr'"]),
        ("again: {rl: 1}", ["unknown key again.rl", "did you mean 'lr'"]),
        ("steps: [{name: a}, {nome: b}]", ["steps.1.nome", "did you mean 'name'", "steps.1.name"]),
        ("optimiser: {}", ["unknown key optimiser", "did you mean 'optimizer'"]),
        ("zzz: {}", ["unknown key zzz", "known keys: again, optimizer, steps"]),
        ("optimizer: {lr: -1}", ["optimizer.lr is -1", "greater than 0"]),
        ("optimizer: {lr: fast}", ["optimizer.lr is 'fast'"]),
        ("[1, 2]", ["must hold keys and values"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        load_yaml(path, Recipe)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    for part in expected:
        assert part in message


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_yaml(tmp_path / "no.yaml", Recipe)


def test_every_shipped_dataset_spec_is_valid() -> None:
    for name in list_specs("datasets"):
        spec = load_dataset_spec(name)
        assert isinstance(spec, DatasetSpec)
        first_line = find_spec("datasets", name).read_text().splitlines()[0]
        assert first_line.startswith(f"# generalist collect {name}")
