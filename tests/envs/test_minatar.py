"""MinAtar: five small games, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from generalist.envs import list_tasks, make
from generalist.errors import UsageError
from generalist.tokenization.processor import GeneralistProcessor

TASKS = [task.name for task in list_tasks("minatar")]


def episode(task: str, seed: int, env=None) -> tuple[list[bytes], list[float]]:
    """What is seen and earned in at most 300 steps of fixed actions."""
    env = env or make(task)
    seen, earned = [env.reset(seed=seed)[0].tobytes()], []
    for action in np.random.default_rng(seed).integers(env.action_space.n, size=300):
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append(observation.tobytes())
        earned.append(reward)
        if terminated or truncated:
            break
    return seen, earned


@pytest.mark.parametrize("task", TASKS)
def test_is_a_gymnasium_environment_whose_layout_holds_all_of_it(task):
    env = make(task, render_mode="rgb_array")
    check_env(env.unwrapped, skip_render_check=True)
    layout = GeneralistProcessor.default().layout(env.observation_space, env.action_space)
    assert layout.tokens_per_timestep == 100 + 1 + 1
    env.reset(seed=1)
    assert env.render().shape == (160, 160, 3)


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_decides_the_episode_whatever_was_played_before(task):
    env = make(task)
    episode(task, 7, env)
    assert episode(task, 3, env) == episode(task, 3)
    assert episode(task, 3) != episode(task, 4)


def test_the_last_action_of_an_episode_does_not_stick_to_the_next():
    env = make("minatar/Breakout", sticky=1.0)  # repeats the last action for ever: none
    env.reset(seed=0)
    still = [env.step(1)[0][9, :, 0].tolist() for _ in range(3)]
    env.unwrapped._game.last_action = 3
    env.reset(seed=0)
    assert [env.step(1)[0][9, :, 0].tolist() for _ in range(3)] == still


def test_an_episode_is_cut_at_the_limit():
    env = make("minatar/Freeway", max_steps=5)
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(5)] == [False] * 4 + [True]


def test_a_share_that_is_no_probability_is_refused():
    with pytest.raises(UsageError, match="sticky is a probability"):
        make("minatar/Breakout", sticky=1.5)
