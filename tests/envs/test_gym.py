"""Installed Gymnasium ids as tasks."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from generalist.envs import get_task, list_tasks, make
from generalist.envs.rendering import offscreen_backend
from generalist.errors import GeneralistError, UsageError
from generalist.experts.collect import RandomPolicy, collect_episode
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


def test_image_observations_are_recognised() -> None:
    assert get_task("gym/CarRacing-v3").frames
    assert not get_task("gym/CliffWalking-v1").frames


class Blind(gymnasium.Env):
    """An environment that cannot be rendered, and whose author left the argument out."""

    observation_space = action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[int, dict]:
        return 0, {}


def test_an_environment_need_not_know_of_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gymnasium.envs.registration.EnvSpec("Blind-v0", entry_point=Blind)
    monkeypatch.setitem(gymnasium.registry, "Blind-v0", spec)
    assert make("gym/Blind-v0").reset(seed=0) == (0, {})


def test_missions_of_minigrid_are_instructions() -> None:
    """Their space is text of no bounded length, which no timestep could hold."""
    processor = GeneralistProcessor.default()
    env = make("gym/MiniGrid-Empty-5x5-v0")
    layout = processor.layout(env.observation_space, env.action_space)
    assert {field.path for field in layout.observation_fields} == {("direction",), ("image",)}
    env.action_space.seed(0)
    episode = collect_episode(env, "gym/MiniGrid-Empty-5x5-v0", RandomPolicy(), 0, max_steps=20)
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
