"""A wheel installed outside the clone: the command, the specs, the tokenizers and an agent.

Once beside the dependencies of this Python, and once with the core alone, as pip resolves it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import TinyRun
from tests.release import distributions

ROOT = Path(__file__).resolve().parents[1]
SPEC_FOLDERS = ("checkpoints", "tokenizers", "datasets", "recipes")

pytestmark = pytest.mark.slow


# What acting does not need, by the names that pip knows.
OPTIONAL = {
    "accelerate", "ale-py", "box2d", "datasets", "dm-control", "imageio", "matplotlib", "minigrid",
    "mujoco", "opencv-python-headless", "pandas", "pillow", "pyarrow", "pygame", "scipy",
    "stable-baselines3", "tensorboard", "webdataset",
}  # fmt: skip


def run(*command: str | Path, cwd: Path, timeout: int = 300) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q")
    run(*pip, "-w", folder, ROOT, cwd=folder)
    (path,) = folder.glob("generalist_agents-*.whl")
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
    assert "generalist/py.typed" in names


@pytest.mark.xfail(strict=True, reason="the checkpoint of 153 tasks alone has 11 MB")
def test_the_wheel_is_small(wheel: Path):
    assert wheel.stat().st_size < 8 * 2**20


def test_both_distributions_are_built_and_hold_the_same(wheel: Path, tmp_path: Path):
    """What `make release` does before it installs them."""
    run(sys.executable, "-m", "hatchling", "build", "-d", tmp_path, cwd=ROOT)
    built, source = distributions(tmp_path)
    names = set(zipfile.ZipFile(built).namelist())
    assert names == set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(source) as archive:
        kept = {name.partition("/")[2] for name in archive.getnames()}
    modules = {name for name in names if name.startswith("generalist/") and "_specs" not in name}
    assert modules <= kept and {"pyproject.toml", "LICENSE", "docs/index.md"} <= kept
    assert not any(name.startswith((".venv", "runs/", "data/", "build/")) for name in kept)


def test_a_folder_without_both_is_refused(tmp_path: Path):
    with pytest.raises(SystemExit, match="should hold a wheel and a source distribution"):
        distributions(tmp_path)


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


def test_the_shipped_checkpoint_acts(installed: Path, tmp_path: Path):
    arguments = ("rollout", "gym", "CartPole-v1", "--checkpoint", "catalogue", "--episodes", "2")
    run(installed / "generalist", *arguments, "--json", "scores.json", cwd=tmp_path)
    assert json.loads((tmp_path / "scores.json").read_text())["mean"] > 200


def test_the_watch_page_is_written(installed: Path, tmp_path: Path):
    run(installed / "generalist", "watch", "gym/CartPole-v1", "--steps", "5", cwd=tmp_path)
    page = (tmp_path / "watch.html").read_text()
    assert "gym/CartPole-v1" in page and "%STYLE%" not in page


def test_an_agent_acts(installed: Path, tmp_path: Path, tiny_run: TinyRun):
    run(
        *(installed / "generalist", "rollout", "gym", "CartPole-v1"),
        *("--checkpoint", tiny_run.checkpoint, "--episodes", "1", "--json", "scores.json"),
        cwd=tmp_path,
    )
    assert "returns" in (tmp_path / "scores.json").read_text()


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a venv with the core alone; what it took is printed."""
    folder = tmp_path_factory.mktemp("core") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    began = time.monotonic()
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel,
        cwd=folder, timeout=1800)  # fmt: skip
    seconds = time.monotonic() - began
    sizes = {
        path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        for path in next(folder.glob("lib/python*/site-packages")).iterdir()
    }
    print(f"core: {seconds:.0f} s, {sum(sizes.values()) / 1e6:.0f} MB, "
          f"{sizes['torch'] / 1e6:.0f} MB of it torch")  # fmt: skip
    return python.parent


ACT = """
import sys, generalist
assert "torch" not in sys.modules
agent = generalist.Agent.from_pretrained(sys.argv[1], task="gym/CartPole-v1")
env = generalist.make("gym/CartPole-v1")
observation, info = env.reset(seed=0)
done, first, steps = False, True, 0
while not done:
    action = agent.act(observation, first=first)
    observation, reward, terminated, truncated, info = env.step(action)
    done, first, steps = terminated or truncated, False, steps + 1
print(steps)
"""


@pytest.mark.timeout(2400)
def test_the_core_alone_acts(core: Path, tmp_path: Path, tiny_run: TinyRun):
    assert int(run(core / "python", "-c", ACT, tiny_run.checkpoint, cwd=tmp_path)) >= 8
    listed = json.loads(run(core / "python", "-m", "pip", "list", "--format=json", cwd=tmp_path))
    assert not OPTIONAL & {each["name"].lower() for each in listed}
    scores = tmp_path / "scores.json"
    run(core / "generalist", "rollout", "gym", "CartPole-v1", "--checkpoint", tiny_run.checkpoint,
        "--episodes", "2", "--json", scores, cwd=tmp_path)  # fmt: skip
    assert len(json.loads(scores.read_text())["returns"]) == 2
    assert "CartPole-v1" in run(core / "generalist", "tasks", cwd=tmp_path)


@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "quickstart"], "train"),
        (["collect", "quickstart", "--out", "data"], "train"),
        (["rollout", "atari", "Pong", "--checkpoint", "{checkpoint}"], "atari"),
        (["rollout", "dmc", "cartpole-swingup", "--checkpoint", "{checkpoint}"], "dmc"),
        (["rollout", "babyai", "GoToLocal", "--checkpoint", "{checkpoint}"], "babyai"),
        (["rollout", "gym", "LunarLander-v3", "--checkpoint", "{checkpoint}"], "box2d"),
        (["rollout", "gym", "Ant-v5", "--checkpoint", "{checkpoint}"], "mujoco"),
        (["rollout", "gym", "CartPole-v1", "--checkpoint", "{checkpoint}", "--video", "v"],
         "video"),
        (["expert", "train", "gym/CartPole-v1"], "experts"),
        (["play"], "play"),
    ],
)  # fmt: skip
def test_what_the_core_lacks_is_named_by_its_extra(
    core: Path, tmp_path: Path, tiny_run: TinyRun, arguments: list[str], extra: str
):
    filled = [each.format(checkpoint=tiny_run.checkpoint) for each in arguments]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    result = subprocess.run(
        [core / "generalist", *filled], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 1
    assert f"pip install 'generalist-agents[{extra}]'" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
