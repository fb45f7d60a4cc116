"""The task registry: names, scores, making, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from generalist.envs import (
    Task,
    family_names,
    get_task,
    is_document_task,
    known_names,
    list_tasks,
    make,
    make_vec,
)
from generalist.errors import GeneralistError, MissingPackageError, UsageError
from generalist.experts import get_expert

QUICKSTART = [
    "gym/CartPole-v1",
    "gym/Pendulum-v1",
    "gym/MountainCarContinuous-v0",
    "gym/LunarLander-v3",
    "dmc/cartpole-swingup",
    "dmc/reacher-easy",
    "babyai/GoToLocal",
    "atari/Freeway",
    "atari/Pong",
    "text/pydoc",
]


def test_the_quickstart_tasks_are_registered_with_a_description() -> None:
    tasks = {task.name: task for task in list_tasks()}
    assert set(QUICKSTART) <= set(tasks)
    assert all(
        task.description and task.family == task.name.split("/")[0] for task in tasks.values()
    )


@pytest.mark.parametrize("name", [n for n in QUICKSTART if not is_document_task(n)])
def test_each_has_an_expert_that_was_measured_better_than_random(name: str) -> None:
    task = get_task(name)
    assert task.random_score is not None and task.expert_score is not None
    margin = task.random_score.stderr + task.expert_score.stderr
    assert task.expert_score.mean > task.random_score.mean + 3 * margin
    assert task.expert_score.episodes >= 20
    assert task.expert_score.seeds[0] >= 1_000_000
    get_expert(name)


def test_any_installed_id_is_a_task_with_nothing_registered() -> None:
    task = get_task("gym/Taxi-v4")
    assert task.max_steps == gymnasium.spec("Taxi-v4").max_episode_steps
    assert task.default_expert == "" and task.expert_score is None
    env = task.make()
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)


def test_a_module_to_import_first_may_stand_before_the_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_world.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('OwnWorld-v0',"
        " entry_point='gymnasium.envs.classic_control.cartpole:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    task = get_task("gym/own_world:OwnWorld-v0")
    env = task.make()
    env.reset(seed=0)
    # An id without a limit of its own still ends.
    assert env.get_wrapper_attr("_max_episode_steps") == task.max_steps
    with pytest.raises(GeneralistError, match="no_such_module"):
        get_task("gym/no_such_module:X-v0")


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("gym/CartPole-v2", "gym/CartPole-v1"),
        ("atari/pong", "atari/Pong"),
        ("Pong", "atari/Pong"),
        ("dmc/reacher_easy", "dmc/reacher-easy"),
        ("babyai/GotoLocal", "babyai/GoToLocal"),
        ("text/pydocs", "text/pydoc"),
        ("zzz/qqq", "FAMILY/NAME"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(given: str, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        get_task(given)
    assert given in str(caught.value) and nearest in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(UsageError, match="stickyness"):
        make("atari/Pong", stickyness=0.1)
    with pytest.raises(UsageError, match="family"):
        list_tasks("atarii")


def test_document_tasks_are_not_made() -> None:
    assert is_document_task("text/pydoc") and not is_document_task("atari/Pong")
    with pytest.raises(UsageError, match="documents"):
        make("text/pydoc")


def test_every_level_and_game_can_be_named() -> None:
    assert len(known_names("babyai")) >= 40
    assert len(known_names("atari")) >= 100
    assert len(known_names("dmc")) >= 50
    for name in (known_names("babyai")[7], known_names("atari")[70]):
        assert isinstance(get_task(name), Task)


def test_families_whose_package_is_missing_are_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from generalist.cli.main import main
    from generalist.envs import babyai

    babyai._levels.cache_clear()
    babyai._registered.cache_clear()
    monkeypatch.setitem(sys.modules, "minigrid", None)
    try:
        assert {task.family for task in list_tasks()} == set(family_names()) - {"babyai"}
        with pytest.raises(UsageError, match="no task 'nothing/x'"):
            get_task("nothing/x")
        with pytest.raises(MissingPackageError, match=r"\[babyai\]"):
            list_tasks("babyai")
        assert main(["tasks"]) == 0
        assert "[babyai]" in capsys.readouterr().err
    finally:
        babyai._levels.cache_clear()
        babyai._registered.cache_clear()


def test_importing_the_environments_loads_no_simulator_and_no_torch() -> None:
    program = (
        "import sys, generalist.envs as envs;"
        "envs.get_task('gym/CartPole-v1'); envs.list_tasks('dmc'); envs.list_tasks('text');"
        "envs.list_tasks('board');"
        "print([m for m in ('torch', 'dm_control', 'mujoco', 'ale_py', 'minigrid', 'cv2',"
        " 'pyspiel') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert answer.stdout.strip() == "[]"


def test_rows_of_a_vector_are_restarted_by_mask_and_by_nothing_else() -> None:
    envs = make_vec("gym/CartPole-v1", 3)
    observations, _ = envs.reset(seed=[1, 2, 3])
    alone = make("gym/CartPole-v1")
    for row, seed in enumerate([1, 2, 3]):
        assert np.array_equal(observations[row], alone.reset(seed=seed)[0])
    over = np.zeros(3, bool)
    while not over.any():
        observations, _, terminated, truncated, _ = envs.step(np.array([0, 1, 0]))
        over = terminated | truncated
    before = observations.copy()
    after, _ = envs.reset(seed=[7, 7, 7], options={"reset_mask": over})
    assert np.array_equal(after[~over], before[~over])
    fresh, _ = alone.reset(seed=7)
    assert all(np.array_equal(row, fresh) for row in after[over])
    envs.step(np.array([0, 0, 0]))  # the rows that went on and the restarted ones step together
    with pytest.raises(UsageError, match="num_envs"):
        make_vec("gym/CartPole-v1", 0)


def test_instructions_of_a_vector_arrive_in_info() -> None:
    envs = make_vec("babyai/GoToLocal", 2)
    _, info = envs.reset(seed=0)
    assert [isinstance(text, str) and text.startswith("go to") for text in info["instruction"]] == [
        True,
        True,
    ]
