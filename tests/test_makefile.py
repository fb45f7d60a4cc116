"""The Makefile says what is missing before it begins, and installs once."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what `make install` reads, and a `pip` that only writes down its arguments."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("TORCH", "TORCH_INDEX", "PYTHON", "TESTS", "MAKEFLAGS", "MAKELEVEL")
    }
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
    )


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}")
    path.chmod(0o755)
    return path


def old_python(clone: Path, *missing: str) -> Path:
    """An interpreter that runs the checks as Python 3.9 would, or without some modules."""
    prelude = "import sys; sys.version_info = (3, 9, 2);" if not missing else "import sys;"
    prelude += "".join(f"sys.modules[{name!r}] = None;" for name in missing)
    return script(
        clone / "python-old",
        f'[ "$1" = -c ] && exec "{sys.executable}" -c "{prelude} $2"\n'
        f'[ "$1" = --version ] && echo Python 3.9.2\n',
    )


def installing_venv(clone: Path) -> Path:
    """A finished .venv whose python writes down what pip was asked for."""
    log = clone / "pip.log"
    script(clone / ".venv" / "bin" / "python", f'echo "$@" >> "{log}"\n')
    return log


def test_no_python(clone: Path):
    result = make(clone, "install", "PYTHON=python-of-nobody")
    assert result.returncode != 0
    assert "No 'python-of-nobody' found. Install Python 3.11 or newer" in result.stderr


def test_an_old_python(clone: Path):
    result = make(clone, "install", f"PYTHON={old_python(clone)}")
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stderr and "Python 3.9.2" in result.stderr
    assert not (clone / ".venv").exists()


def test_a_python_without_venv_names_the_package(clone: Path):
    result = make(clone, "install", f"PYTHON={old_python(clone, 'ensurepip')}")
    assert result.returncode != 0
    assert "apt install python3-venv" in result.stderr


def test_installs_with_the_pins_and_only_once(clone: Path):
    log = installing_venv(clone)
    assert make(clone, "install").returncode == 0
    installing = "-m pip install -c .venv/constraints.txt -e .[dev]\n"
    assert log.read_text() == installing
    assert make(clone, "install").returncode == 0
    assert log.read_text() == installing


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_installs_again_when_a_requirement_changed(clone: Path, name: str):
    log = installing_venv(clone)
    make(clone, "install")
    later = (clone / ".venv" / ".installed").stat().st_mtime + 1
    os.utime(clone / name, (later, later))
    make(clone, "install")
    assert len(log.read_text().splitlines()) == 2


def test_another_torch_replaces_the_pin_and_installs_again(clone: Path):
    log = installing_venv(clone)
    make(clone, "install")
    make(clone, "install", "TORCH=torch==2.12.0", "TORCH_INDEX=somewhere")
    _, torch_first, rest = log.read_text().splitlines()
    assert torch_first == "-m pip install --index-url somewhere torch==2.12.0"
    assert rest.endswith("-e .[dev]")
    pins = (clone / ".venv" / "constraints.txt").read_text()
    assert re.findall(r"^torch==.*$", pins, re.MULTILINE) == ["torch==2.12.0"]


def test_help_lists_the_targets(clone: Path):
    shown = make(clone).stdout
    targets = (
        "watch", "quickstart", "ship", "test", "lint", "docs", "release", "install", "clean",
    )  # fmt: skip
    for target in targets:
        assert re.search(rf"^{target} ", shown, re.MULTILINE)


def test_every_requirement_is_pinned():
    """An unpinned package could be another one tomorrow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    pinned = {
        normalized(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    wanted = [
        each for each in wanted if not each.startswith("generalist-agents[")
    ]  # its own extras
    assert {requirement_name(each) for each in wanted} - pinned == set()


TOOLS = ("dev", "docs", "notebooks", "deepspeed")  # the last is not installed for tests


def test_the_lowest_versions_are_the_lower_bounds():
    """A bound that is raised or new is one that has not been tried with the others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + sum(
        (extras[name] for name in extras if name not in (*TOOLS, "metaworld")), []
    )
    bounds = {
        (requirement_name(each), re.findall(r">=([\d.]+)", each)[0])
        for each in wanted
        if not each.startswith("generalist-agents[")
    }
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    lowest = dict(line.split("==") for line in lines if not line.startswith("#"))
    lowest = {normalized(name): version for name, version in lowest.items()}
    assert {name for name, _ in bounds} == lowest.keys()
    for name, bound in sorted(bounds):  # the first release of 1.0 may be 1.0.2
        assert f"{lowest[name]}.".startswith(f"{bound}."), f"{name}>={bound} is not {lowest[name]}"


# What an extra has installed without our importing it, and for what.
NEVER_IMPORTED = {
    "chess": "open-spiel's game of that name",
    "imageio-ffmpeg": "imageio writes videos through it",
    "tensorboard": "accelerate's tracker",
}


def test_every_requirement_is_imported():
    """A package nobody imports brings what it requires along, for every user."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + sum(
        (extras[name] for name in extras if name not in TOOLS), []
    )
    wanted = [each for each in wanted if not each.startswith("generalist-agents[")]
    packages = packages_distributions()
    imported = {
        normalized(package)
        for path in (ROOT / "generalist").rglob("*.py")
        for module in imported_modules(path)
        for package in packages.get(module, ())
    }
    assert {requirement_name(each) for each in wanted} - imported == NEVER_IMPORTED.keys()


def imported_modules(path: Path) -> set[str]:
    """The outermost names of what a file imports, lazily or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def requirement_name(requirement: str) -> str:
    return normalized(re.split(r"[\[<>=! ]", requirement)[0])


def normalized(package: str) -> str:
    return package.lower().replace("_", "-")
