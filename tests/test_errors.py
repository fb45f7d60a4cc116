"""Errors for the person at the keyboard: a missing package names the extra that brings it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import generalist
from generalist import errors
from generalist.errors import DISTRIBUTION, EXTRAS, MissingPackageError, needing
from tests.test_makefile import normalized, requirement_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules whose distribution has another name.
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "pyspiel": "open-spiel", "yaml": "pyyaml"}
# What a distribution of the extra brings along.
BROUGHT_BY = {
    "Box2D": "gymnasium[box2d]",
    "h5py": "minari[hdf5]",
    "pyarrow": "datasets",
    "pygame": "gymnasium[classic-control]",
}


def brought(extra: str) -> set[str]:
    """The requirements of an extra, those of the extras it names included, without versions."""
    found: set[str] = set()
    for each in PROJECT["optional-dependencies"][extra]:
        name = re.split(r"[<>=; ]", each)[0]
        if name.startswith(f"{DISTRIBUTION}["):
            for inner in name[len(DISTRIBUTION) + 1 : -1].split(","):
                found |= brought(inner)
        else:
            found.add(normalized(name))
    return found


@pytest.mark.parametrize("module", EXTRAS)
def test_the_extra_that_is_named_brings_the_module(module: str) -> None:
    wanted = BROUGHT_BY.get(module) or DISTRIBUTIONS.get(module) or normalized(module)
    assert {wanted, f"{wanted}[default]", f"{wanted}[hdf5]"} & brought(EXTRAS[module])


def test_every_import_is_of_the_core_or_of_a_known_extra() -> None:
    core = {requirement_name(each) for each in PROJECT["dependencies"]}
    known = EXTRAS.keys() | sys.stdlib_module_names | {"generalist"}
    brought_by_others = {
        "PIL": "imageio", "triton": "torch, with a GPU", "typing_extensions": "pydantic",
    }  # fmt: skip
    for path in (ROOT / "generalist").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in (name.partition(".")[0] for name in names):
                distribution = DISTRIBUTIONS.get(name, normalized(name))
                assert name in known or distribution in core or name in brought_by_others, (
                    f"{path}: {name}"
                )


def test_the_hint_fits_how_it_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = str(MissingPackageError("vizdoom", "doom/"))
    assert said.endswith("which is missing: pip install -e '.[doom]'.")
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "generalist" / "errors.py"))
    said = str(MissingPackageError("vizdoom", "doom/"))
    assert said.endswith("which is missing: pip install 'generalist-agents[doom]'.")
    assert "pip install other." in str(MissingPackageError("other", "This"))


def test_a_missing_package_of_an_extra_is_named_others_are_not_ours() -> None:
    with pytest.raises(MissingPackageError, match=r"^Filming needs .* 'cv2'.*\[images\]"):
        with needing("Filming"):
            raise ModuleNotFoundError("no", name="cv2.something")
    with pytest.raises(ModuleNotFoundError), needing("Filming"):
        raise ModuleNotFoundError("no", name="somebodys_module")


@pytest.mark.parametrize("name", ["train", "collect"])
def test_the_public_functions_name_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [key for key in sys.modules if key.startswith("generalist.training")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    if name == "train":
        with pytest.raises(MissingPackageError, match=r"^generalist.train needs .*\[train\]"):
            getattr(generalist, name)
    else:
        assert callable(getattr(generalist, name))
