"""A wheel installed outside the clone: the command, the specs, the tokenizers and an agent."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import TinyRun

ROOT = Path(__file__).resolve().parents[1]
SPEC_FOLDERS = ("tokenizers", "datasets", "recipes")

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q")
    run(*pip, "-w", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a venv that holds the wheel; the dependencies are those of this Python.

    A plain path in a .pth file adds a folder without reading the .pth files in it, so that an
    editable generalist of this Python stays out of sight.
    """
    folder = tmp_path_factory.mktemp("outside") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", f"--python={python}", "install", "-q", "--no-deps", wheel,
        cwd=folder)  # fmt: skip
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    Path(site.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def test_the_wheel_holds_the_package_and_every_spec(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"generalist"}
    tracked = run("git", "ls-files", "--", *SPEC_FOLDERS, cwd=ROOT).split("\n")
    expected = {f"generalist/_specs/{path}" for path in tracked if path}
    assert expected and expected <= names
    modules = run("git", "ls-files", "--", "generalist/*.py", cwd=ROOT).split("\n")
    assert {path for path in modules if path} <= names


def test_the_wheel_is_small(wheel: Path):
    assert wheel.stat().st_size < 8 * 2**20


def test_it_is_the_wheel_that_is_imported(installed: Path, tmp_path: Path):
    file = run(installed / "python", "-c", "import generalist; print(generalist.__file__)",
               cwd=tmp_path)  # fmt: skip
    assert installed.parent in Path(file.strip()).parents


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["rollout", "--help"]])
def test_help_works(installed: Path, tmp_path: Path, arguments: list[str]):
    assert "Usage" in run(installed / "generalist", *arguments, cwd=tmp_path)


def test_tasks_are_listed(installed: Path, tmp_path: Path):
    assert "CartPole-v1" in run(installed / "generalist", "tasks", cwd=tmp_path)


@pytest.mark.parametrize("kind", SPEC_FOLDERS)
def test_spec_names_are_those_of_the_clone(installed: Path, tmp_path: Path, kind: str):
    code = f"from generalist.specs import list_specs; print(sorted(list_specs({kind!r})))"
    outside = run(installed / "python", "-c", code, cwd=tmp_path)
    assert outside == run(sys.executable, "-c", code, cwd=ROOT)
    code = (
        "from generalist.specs import find_spec, list_specs\n"
        f"for name in list_specs({kind!r}): print(find_spec({kind!r}, name))"
    )
    for path in run(installed / "python", "-c", code, cwd=tmp_path).splitlines():
        assert installed.parent in Path(path).parents


def test_a_way_to_launch_is_found(installed: Path, tmp_path: Path):
    """What `accelerate launch --config_file $(generalist recipe zero2)` is given."""
    path = Path(run(installed / "generalist", "recipe", "zero2", cwd=tmp_path).strip())
    assert installed.parent in path.parents and "zero_stage: 2" in path.read_text()


def test_the_shipped_tokenizers_are_those_of_the_clone(installed: Path, tmp_path: Path):
    code = "import generalist; print(generalist.GeneralistProcessor.default().fingerprint)"
    outside = run(installed / "python", "-c", code, cwd=tmp_path)
    assert outside == run(sys.executable, "-c", code, cwd=ROOT)


def test_an_agent_acts(installed: Path, tmp_path: Path, tiny_run: TinyRun):
    run(
        *(installed / "generalist", "rollout", "gym", "CartPole-v1"),
        *("--checkpoint", tiny_run.checkpoint, "--episodes", "1", "--json", "scores.json"),
        cwd=tmp_path,
    )
    assert "returns" in (tmp_path / "scores.json").read_text()
