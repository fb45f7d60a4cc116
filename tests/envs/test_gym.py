"""Installed Gymnasium ids as tasks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from generalist.cli.main import main
from generalist.envs import get_task, known_names, list_tasks, make
from generalist.envs.rendering import offscreen_backend
from generalist.errors import GeneralistError, UsageError
from generalist.experts import random_episode
from generalist.tokenization.processor import GeneralistProcessor

REGISTERED = [task.name for task in list_tasks("gym")]


def trace(name: str, seed: int, steps: int = 30) -> tuple[list[Any], list[float]]:
    env = make(name)
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(0)
    observations, rewards = [observation], []
    for _ in range(steps):
        assert env.observation_space.contains(observation)
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        observations.append(observation)
        rewards.append(float(reward))
        if terminated or truncated:
            break
    return observations, rewards


@pytest.mark.parametrize("name", REGISTERED)
def test_a_seed_gives_one_trajectory_and_another_seed_another(name: str) -> None:
    first, second, other = trace(name, 3), trace(name, 3), trace(name, 4)
    assert np.array_equal(first[0], second[0]) and first[1] == second[1]
    assert not np.array_equal(first[0][0], other[0][0])


def test_the_step_limit_is_the_ids_own_or_ours_or_the_callers() -> None:
    assert get_task("gym/CartPole-v1").max_steps == 500
    env = make("gym/Pendulum-v1", max_steps=7)
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[3] for _ in range(7)]
    assert ends == [False] * 6 + [True]


class Broken(gymnasium.Env):
    """What a third party may install: nothing can be known of it but its name."""

    def __init__(self) -> None:
        raise RuntimeError("no licence for the simulator")


def test_a_name_costs_no_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that are installed are listed, a broken one and one of vectors only among them."""
    for spec in (
        EnvSpec("Broken-v0", entry_point=Broken, max_episode_steps=7),
        EnvSpec("Vectors-v0", vector_entry_point=f"{__name__}:Broken"),
    ):
        monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    get_task.cache_clear()
    tasks = {task.name: task for task in list_tasks(everything=True)}
    assert tasks["gym/Broken-v0"].max_steps == 7 and "gym/Vectors-v0" not in tasks
    assert set(REGISTERED) <= set(tasks) and len(tasks) > 300
    assert main(["tasks", "gym", "--all"]) == 0
    line = next(row for row in capsys.readouterr().out.splitlines() if "gym/Broken-v0" in row)
    assert line.split()[1] == "-", "whether it shows frames would cost an environment"
    assert get_task("gym/CarRacing-v3").frames is None


def test_no_environment_of_any_family_is_made_for_its_name() -> None:
    """In a process of its own: what replaces a class's `__new__` cannot be taken back."""
    program = (
        "import gymnasium\n"
        "from generalist.envs import list_tasks\n"
        "def refuse(cls, *args, **options): raise AssertionError(cls)\n"
        "gymnasium.Env.__new__ = refuse\n"
        "print(len(list_tasks(everything=True)), len(list_tasks()))\n"
        "import generalist\n"
        "try: generalist.make('babyai/GoToLocal')\n"
        "except Exception: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    counts, refused = done.stdout.splitlines()[-2:]
    everything, registered = map(int, counts.split())
    assert everything > registered > 300 and refused == "refused"


@pytest.mark.parametrize("name", ["gym/Reacher-v2", "gym/GymV21Environment-v0", "gym/Broken-v0"])
def test_what_cannot_be_made_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gymnasium.registry, "Broken-v0", EnvSpec("Broken-v0", entry_point=Broken))
    with pytest.raises(GeneralistError, match=f"{name} cannot be made: [A-Z][A-Za-z]+Error"):
        make(name)


@pytest.mark.parametrize("name", ["gym/tabular/CliffWalking-v0", "gym/ALE/Pong-v5"])
def test_ids_with_a_namespace_are_tasks(name: str) -> None:
    assert get_task(name).name == name and name.removeprefix("gym/") in gymnasium.registry
    assert name in known_names("gym")


def test_an_unknown_id_with_a_namespace_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="gym/ALE/Pong-v5"):
        get_task("gym/ALE/Pong-v55")


PACKAGE = """
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

def register_envs():
    for name in {ids}:
        gymnasium.register(name, entry_point=CartPoleEnv, max_episode_steps=9)
"""


def install(folder: Path, package: str, entry: str, source: str) -> None:
    """A package with an entry point, as pip lays it out."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("")
    (folder / package / "envs.py").write_text(source)
    facts = folder / f"{package}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        f"[gymnasium.envs]\n{entry} = {package}.envs:register_envs\n"
    )


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is registered during a test is forgotten after it."""
    before = dict(gymnasium.registry)
    get_task.cache_clear()
    yield
    gymnasium.registry.clear()
    gymnasium.registry.update(before)
    get_task.cache_clear()


@pytest.mark.parametrize(
    ("package", "entry", "ids", "name"),
    [
        ("small1", "Small", ["Ball-v1"], "gym/small1:Small/Ball-v1"),
        ("small2", "Small", ["Ball-v1"], "gym/Small/Ball-v1"),
        ("small3", "Small", ["Small/Ball-v1"], "gym/small3:Small/Ball-v1"),  # as MinAtar does
        ("small4", "__root__", ["SmallBall-v1"], "gym/SmallBall-v1"),
        ("small5", "__root__", ["Small/Ball-v1"], "gym/small5.envs:Small/Ball-v1"),
    ],
)
def test_packages_that_register_through_an_entry_point_are_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    registry: None,
    package: str,
    entry: str,
    ids: list[str],
    name: str,
) -> None:
    install(tmp_path, package, entry, PACKAGE.format(ids=ids))
    monkeypatch.syspath_prepend(str(tmp_path))
    task = get_task(name)
    assert task.max_steps == 9
    env = task.make()
    assert env.observation_space.contains(env.reset(seed=0)[0])
    short = name.removeprefix("gym/").rpartition(":")[2]
    assert f"gym/{short}" in known_names("gym")


def test_a_broken_entry_point_spoils_no_other_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: None
) -> None:
    install(tmp_path / "a", "broken_worlds", "Broken", "raise RuntimeError('no licence')")
    install(tmp_path / "b", "broken_roots", "__root__", "import no_such_package_anywhere")
    for part in ("a", "b"):
        monkeypatch.syspath_prepend(str(tmp_path / part))
    with pytest.warns(UserWarning) as said:
        assert "gym/CartPole-v1" in known_names("gym")
    assert sum("no_such_package_anywhere" in str(each.message) for each in said) == 1
    with pytest.raises(UsageError, match="CartPole-v1"):
        get_task("gym/CartPole-v77")
    with pytest.raises(GeneralistError, match="Broken = broken_worlds.envs.*no licence"):
        get_task("gym/Broken/World-v0")
    gymnasium.register("Later-v0", entry_point=Blind)
    assert gymnasium.registry["Later-v0"].namespace is None


class Blind(gymnasium.Env):
    """An environment that cannot be rendered, and whose author left the argument out."""

    observation_space = action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[int, dict]:
        return 0, {}


def test_an_environment_need_not_know_of_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = EnvSpec("Blind-v0", entry_point=Blind)
    monkeypatch.setitem(gymnasium.registry, "Blind-v0", spec)
    assert make("gym/Blind-v0").reset(seed=0) == (0, {})


def test_missions_of_minigrid_are_instructions() -> None:
    """Their space is text of no bounded length, which no timestep could hold."""
    processor = GeneralistProcessor.default()
    env = make("gym/MiniGrid-Empty-5x5-v0")
    layout = processor.layout(env.observation_space, env.action_space)
    assert {field.path for field in layout.fields[:-1]} == {("direction",), ("image",)}
    env.action_space.seed(0)
    episode = random_episode(env, "gym/MiniGrid-Empty-5x5-v0", 0, max_steps=20)
    again = processor.decode(processor.encode(episode, layout), layout)
    assert np.array_equal(again.observations["image"], episode.observations["image"])
    assert np.array_equal(again.actions, episode.actions)
    assert episode.instruction == "get to the green goal square"
    header = processor.header(episode.task, episode.instruction).tolist()
    words = header[header.index(processor.vocabulary.special("instruction")) + 1 :]
    assert processor.decode_text(words) == episode.instruction


def test_a_wrong_option_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="gravitas"):
        make("gym/Pendulum-v1", gravitas=9.0)


def test_mujoco_rendering_without_opengl_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    assert offscreen_backend() is None
    with pytest.raises(GeneralistError) as caught:
        make("gym/HalfCheetah-v5", render_mode="rgb_array")
    assert "libegl1" in str(caught.value) and "libosmesa6" in str(caught.value)
    make("gym/HalfCheetah-v5").reset(seed=0)  # without rendering all is well
