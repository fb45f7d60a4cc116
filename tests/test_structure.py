"""The shape of the project: what imports what, what the folders of specs hold, what stays fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "generalist"
SPEC_FOLDERS = ("checkpoints", "tokenizers", "datasets", "recipes")

# The path of the data, left to right. A station imports only from stations before it, its own,
# and the ground all stand on. Stations of the same number know nothing of each other.
GROUND = {
    "clusters", "errors", "gpu", "integrity", "network", "numbers", "processes", "seeds",
    "settings", "specs", "streams", "version", "yaml_values",
}  # fmt: skip
STATIONS = {
    "vocabulary": 0,
    "episode": 0,
    "policy": 1,
    "planning": 1,
    "envs": 2,
    "session": 3,
    "experts": 4,
    "tokenization": 5,
    "shards": 6,
    "windows": 7,
    "modeling": 8,
    "decoding": 9,
    "acting": 10,
    "collecting": 11,
    "importing": 12,
    "training": 13,  # which acts in its rounds
    "evaluation": 14,
    "analysis": 15,
    "viewer": 15,
    "cli": 16,
}
# Declared exceptions: (importing module, imported station) and why.
ALLOWED = {
    ("generalist.envs.measure", "experts"): "a program: it plays the experts to fill scores.json",
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_names(path: Path) -> set[str]:
    """What a module imports of ours, lazily or not; `from generalist.a import b` is .a.b here."""
    found: set[str] = set()
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        found.update(name for name in names if name.startswith("generalist."))
    return found


def imported_stations(path: Path) -> set[str]:
    """The names directly under `generalist` that a module imports."""
    return {name.split(".")[1] for name in imported_names(path)}


def test_every_module_belongs_to_a_station():
    known = STATIONS.keys() | GROUND | {"__init__", "__main__"}
    found = {path.stem if path.suffix else path.name for path in PACKAGE.iterdir()}
    assert found - known - {"__pycache__", "_specs", "py"} == set()


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_a_station_imports_only_what_stands_to_its_left(path: Path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    station = parts[0]
    if station in {"__init__", "__main__"}:
        return  # the public interface names what lies everywhere
    level = -1 if station in GROUND else STATIONS[station]
    for other in imported_stations(path) & STATIONS.keys() - {station}:
        if (module_name(path), other) not in ALLOWED:
            assert STATIONS[other] < level, (
                f"{module_name(path)} imports generalist.{other}, which stands to its right"
            )


def test_each_exception_is_still_needed():
    for module, station in ALLOWED:
        assert station in imported_stations(ROOT / f"{module.replace('.', '/')}.py")


def test_the_import_check_sees_every_form_of_import(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    folder = tmp_path / "generalist" / "envs"
    folder.mkdir(parents=True)
    path = folder / "gym.py"
    path.write_text(
        "import generalist.cli.main\n"
        "from generalist.training.loop import train\n"
        "from generalist import acting\n"
        "def late():\n    from ..shards import index\n    from .. import modeling\n"
    )
    assert imported_stations(path) == {"cli", "training", "acting", "shards", "modeling"}


def test_no_modules_import_each_other():
    """Not even for types, nor over several others: each can be read after those it imports."""
    imports = {module_name(path): imported_names(path) for path in modules()}
    graph = {
        module: {name if name in imports else name.rpartition(".")[0] for name in names}
        for module, names in imports.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them


@pytest.mark.parametrize("folder", SPEC_FOLDERS)
def test_spec_folders_hold_no_python(folder: str):
    assert (ROOT / folder).is_dir()
    assert [str(path) for path in (ROOT / folder).rglob("*.py")] == []


def test_hugging_faces_packages_are_not_shadowed_from_the_root():
    # `-c` puts the working directory first on the path, as `python -m pytest` does. Where a package
    # would be found says what an import of it would give, without the seconds that takes.
    code = (
        "from importlib.util import find_spec; "
        "print(find_spec('datasets').origin, find_spec('tokenizers').origin, sep='\\n')"
    )
    files = python("-c", code).splitlines()
    assert len(files) == 2
    for file in files:
        assert Path(file).name == "__init__.py"
        assert ROOT / "datasets" not in Path(file).parents
        assert ROOT / "tokenizers" not in Path(file).parents


def test_tests_are_packages_throughout():
    """Half of them packages would import two test files of one name as the same module."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    missing = [str(f) for f in folders if not (f / "__init__.py").exists()]
    assert missing == []


SPECS = sorted(
    path
    for folder in SPEC_FOLDERS
    for pattern in ("*.yaml", "*.yml")
    for path in (ROOT / folder).rglob(pattern)
)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_spec_is_a_yaml_mapping(path: Path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def specs_in(folder: str) -> list:
    return [pytest.param(path, id=path.stem) for path in SPECS if path.parent == ROOT / folder]


@pytest.mark.parametrize("path", specs_in("datasets"))
def test_every_dataset_is_one_of_known_tasks(path: Path):
    from generalist.envs import get_task, is_document_task
    from generalist.experts import expert_names
    from generalist.windows.spec import load_dataset_spec

    for each in load_dataset_spec(path).tasks:
        assert get_task(each.task).name == each.task
        assert is_document_task(each.task) or each.expert or expert_names(each.task)


@pytest.mark.parametrize("path", specs_in("recipes"))
def test_every_recipe_is_read_and_says_how_it_is_run(path: Path):
    from generalist.training.recipe import dump_recipe, load_recipe

    assert dump_recipe(load_recipe(path))
    assert f"generalist train {path.stem}" in path.read_text().split("\n")[0]


@pytest.mark.parametrize("path", specs_in("recipes/selfplay"))
def test_every_recipe_of_selfplay_is_read_and_says_how_it_is_run(path: Path):
    from generalist.training.selfplay.recipe import load_selfplay_recipe

    assert load_selfplay_recipe(path).boards
    assert f"generalist selfplay selfplay/{path.stem}" in path.read_text()


@pytest.mark.parametrize("path", specs_in("recipes/suites"))
def test_every_suite_is_read(path: Path):
    from generalist.evaluation.suite import load_suite

    assert load_suite(path).tasks


def test_there_are_specs_to_check():
    """An empty list would pass the tests above without a word."""
    names = {path.stem for path in SPECS}
    assert {"quickstart", "laptop"} <= names
    for folder in ("datasets", "recipes", "recipes/suites"):
        assert specs_in(folder)


@pytest.mark.parametrize("module", ["generalist", "generalist.envs", "generalist.cli.main"])
def test_torch_is_not_loaded_by(module: str):
    heavy = "{'torch', 'transformers', 'accelerate', 'datasets', 'tensorboard', 'matplotlib'}"
    loaded = python("-c", f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))")
    assert loaded.strip() == "[]"


def test_help_loads_no_torch():
    code = (
        "import sys\n"
        "from generalist.cli.main import main\n"
        "sys.argv = ['generalist', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    assert "rollout" in python("-c", code)


def python(*arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
