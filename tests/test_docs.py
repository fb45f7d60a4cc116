"""The documentation site: every page is in it, and generated pages explain every option and key."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.readme import DOCS, ROOT
from tests.test_readme import GENERATED


def loaded(name: str) -> ModuleType:
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return loaded("hooks").generated_pages()


def pages_of(entries: list) -> list[str]:
    """The pages of a navigation, whatever section they stand in."""
    found = []
    for entry in entries:
        below = [entry] if isinstance(entry, str) else list(entry.values())
        for each in below:
            found += [each] if isinstance(each, str) else pages_of(each)
    return found


def test_every_page_is_in_the_navigation_once():
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    shown = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(shown) == sorted(there | GENERATED)


def test_the_generated_pages_are_those_that_are_linked(generated):
    assert generated.keys() == GENERATED


def test_drawings_are_what_the_package_says():
    """`python docs/drawings.py` writes them; each concept page shows its own."""
    drawings = loaded("drawings")
    for draw in drawings.DRAWINGS:
        file = drawings.FOLDER / f"{draw.__name__}.svg"
        assert file.read_text(encoding="utf-8") == draw().svg(), f"{file}: draw it again"
        page = DOCS / "concepts" / f"{draw.__name__}.md"
        assert f"](../img/{file.name})" in page.read_text(encoding="utf-8")
    assert len(drawings.DRAWINGS) == len(list((DOCS / "concepts").glob("*.md")))


def rows(page: str) -> list[list[str]]:
    """The cells of all tables of a page, without their heads."""
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    return [re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |")) for line in lines]


@pytest.mark.parametrize(
    "page", ["commands", "recipe", "dataset", "suite"], ids=lambda name: f"reference/{name}"
)
def test_every_option_and_key_is_explained(generated, page):
    found = rows(generated[f"reference/{page}.md"])
    assert len(found) > 10
    assert [cells[0] for cells in found if len(cells[-1].strip()) < 10] == []


def test_nothing_of_a_recipe_is_missing(generated):
    from generalist.training.recipe import Recipe

    def keys(model: type, prefix: str = "") -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            found.append(f"{prefix}{name}")
            if hasattr(field.annotation, "model_fields"):
                found += keys(field.annotation, f"{prefix}{name}.")
        return found

    shown = {cells[0].strip("`") for cells in rows(generated["reference/recipe.md"])}
    assert set(keys(Recipe)) <= shown
    assert "corrections.tasks.TASK.episodes" in shown


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "reference" / "api.html").read_text()
    import generalist

    for name in generalist.__all__:
        assert f"generalist.{name}" in api
