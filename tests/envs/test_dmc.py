"""The Control Suite's environments: spaces, seeds, ends of episodes, rendering."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import generalist.envs.dmc as dmc
from generalist.envs import get_task, list_tasks, make, make_vec
from generalist.envs.rendering import offscreen_backend
from generalist.errors import GeneralistError, UsageError

# Plain, a target drawn at random, a scalar observation, a drawn model without action bounds.
KINDS = ["dmc/cartpole-swingup", "dmc/reacher-easy", "dmc/walker-walk", "dmc/lqr-lqr_2_1"]


def trace(env: gymnasium.Env, seed: int, steps: int = 20) -> np.ndarray:
    """Observations and rewards of one episode's first steps under seeded random actions."""
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    rows = [[*np.concatenate(list(observation.values())), 0.0]]
    for _ in range(steps):
        observation, reward, *_ = env.step(env.action_space.sample())
        rows.append([*np.concatenate(list(observation.values())), reward])
    return np.array(rows)


@pytest.mark.parametrize("name", KINDS)
def test_observations_lie_in_their_space_of_float32_vectors(name: str) -> None:
    env = make(name)
    assert isinstance(env.observation_space, spaces.Dict)
    assert env.action_space.dtype == np.float32
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        assert env.observation_space.contains(observation)
        assert all(v.dtype == np.float32 and v.ndim == 1 for v in observation.values())
        observation, reward, *_ = env.step(env.action_space.sample())
        assert isinstance(reward, float)


@pytest.mark.parametrize("name", KINDS)
def test_a_seed_gives_the_same_episode_in_a_new_and_in_a_used_environment(name: str) -> None:
    env = make(name)
    first, other = trace(env, seed=5), trace(env, seed=6)
    assert not np.array_equal(first, other)
    assert np.array_equal(first, trace(env, seed=5))
    assert np.array_equal(first, trace(make(name), seed=5))


def test_resets_without_a_seed_go_on_to_new_starts() -> None:
    env = make("dmc/reacher-easy")
    env.reset(seed=1)
    a, _ = env.reset()
    b, _ = env.reset()
    assert not np.array_equal(a["to_target"], b["to_target"])
    env.reset(seed=1)
    again, _ = env.reset()
    assert np.array_equal(a["to_target"], again["to_target"])


def test_a_reset_compiles_nothing() -> None:
    env = make("dmc/cartpole-swingup")
    env.reset(seed=0)
    model = env.unwrapped.physics.model.ptr
    env.reset(seed=1)
    assert env.unwrapped.physics.model.ptr is model


@pytest.mark.parametrize("name", ["dmc/cartpole-balance", "dmc/lqr-lqr_2_1"])
def test_an_episode_is_truncated_after_1000_steps(name: str) -> None:
    """Also in the domain where the suite itself sets no limit of time."""
    env = make(name)
    env.reset(seed=0)
    still = np.zeros(env.action_space.shape, np.float32)
    ends = [env.step(still)[2:4] for _ in range(1000)]
    assert ends[-1] == (False, True)
    assert not any(terminated or truncated for terminated, truncated in ends[:-1])
    with pytest.raises(GeneralistError, match="reset"):
        env.step(still)
    assert get_task(name).max_steps == 1000


def test_max_steps_shortens_an_episode() -> None:
    env = make("dmc/reacher-easy", max_steps=3)
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(3)] == [False, False, True]


def test_discount_zero_terminates() -> None:
    """The suite ends an LQR task with discount 0 once the state is as good as still at the goal."""
    env = make("dmc/lqr-lqr_2_1")
    env.reset(seed=0)
    physics = env.unwrapped.physics
    with physics.reset_context():
        physics.data.qpos[:] = 0.0
        physics.data.qvel[:] = 0.0
    _, _, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
    assert (terminated, truncated) == (True, False)


def test_actions_out_of_bounds_are_clipped_and_wrong_ones_refused() -> None:
    a, b = make("dmc/cartpole-swingup"), make("dmc/cartpole-swingup")
    a.reset(seed=0)
    b.reset(seed=0)
    far = a.step(np.array([7.0], np.float32))
    edge = b.step(np.array([1.0], np.float32))
    assert np.array_equal(far[0]["velocity"], edge[0]["velocity"]) and far[1] == edge[1]
    with pytest.raises(UsageError, match="shape"):
        a.step(np.zeros(2, np.float32))
    with pytest.raises(UsageError, match="finite"):
        a.step(np.array([np.nan], np.float32))


def test_every_task_of_the_suite_is_a_task() -> None:
    from dm_control import suite

    known = {task.name for task in list_tasks("dmc", everything=True)}
    assert known == {f"dmc/{domain}-{task}" for domain, task in suite.ALL_TASKS}
    assert {task.name for task in list_tasks("dmc")} <= known
    with pytest.raises(UsageError, match="dmc/cartpole-swingup"):
        get_task("dmc/cartpole-swing")


@pytest.mark.slow
def test_every_task_of_the_suite_can_be_made_and_stepped() -> None:
    for task in list_tasks("dmc", everything=True):
        env = task.make()
        observation, _ = env.reset(seed=0)
        assert env.observation_space.contains(observation), task.name
        observation, *_ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation), task.name
        env.close()


def test_a_task_that_asks_for_opengl_at_each_reset_runs_without() -> None:
    env = make("dmc/quadruped-escape")
    first, _ = env.reset(seed=0)
    again, _ = env.reset(seed=0)
    assert all(np.array_equal(first[key], again[key]) for key in first)


def test_environments_step_together() -> None:
    envs = make_vec("dmc/reacher-easy", 3)
    observations, _ = envs.reset(seed=4)
    assert observations["to_target"].shape == (3, 2)
    alone, _ = make("dmc/reacher-easy").reset(seed=5)
    assert np.array_equal(observations["position"][1], alone["position"])


def test_dm_control_is_imported_only_when_a_task_is_made_and_leaves_the_settings_alone() -> None:
    code = (
        "import os, sys; from generalist.envs import get_task\n"
        "task = get_task('dmc/cartpole-swingup'); assert 'dm_control' not in sys.modules\n"
        "task.make().reset(seed=0); assert 'MUJOCO_GL' not in os.environ\n"
        "from dm_control import _render; assert _render.BACKEND == 'off', _render.BACKEND\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)


@pytest.mark.skipif(offscreen_backend() is None, reason="this machine has neither EGL nor OSMesa")
def test_rendering_draws_the_scene() -> None:
    env = make("dmc/cartpole-swingup", render_mode="rgb_array", height=120, width=160)
    env.reset(seed=0)
    before = env.render()
    for _ in range(30):
        env.step(np.ones(1, np.float32))
    after = env.render()
    env.close()
    assert before.shape == (120, 160, 3) and before.dtype == np.uint8
    assert before.std() > 5 and not np.array_equal(before, after)


def test_rendering_without_opengl_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    # As on a machine without the libraries: only the search for them is replaced.
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(GeneralistError, match="libegl1.*libosmesa6"):
        make("dmc/cartpole-swingup", render_mode="rgb_array")
    with pytest.raises(UsageError, match="rgb_array"):
        make("dmc/cartpole-swingup", render_mode="human")


def test_the_package_s_name_is_given_where_dm_control_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dmc._suite.cache_clear()
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(GeneralistError, match=r"\[dmc\]"):
        make("dmc/cartpole-swingup")
    dmc._suite.cache_clear()
