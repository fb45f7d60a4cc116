"""Installed Gymnasium ids as tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from generalist.envs import get_task, list_tasks, make
from generalist.envs.rendering import offscreen_backend
from generalist.errors import GeneralistError, UsageError

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


def test_image_observations_are_recognised() -> None:
    assert get_task("gym/CarRacing-v3").frames
    assert not get_task("gym/CliffWalking-v1").frames


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
