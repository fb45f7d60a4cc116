"""The Control Suite's experts: what they score, that they recover, and that they only look."""

from __future__ import annotations

import numpy as np
import pytest

from generalist.envs import known_names, list_tasks, make
from generalist.experts import collect_episode, get_expert, random_episode

# Well below what was measured, far above what random play gets.
LEAST_RETURN = {
    "dmc/cartpole-swingup": 800.0,
    "dmc/cartpole-balance": 980.0,
    "dmc/reacher-easy": 900.0,
    "dmc/reacher-hard": 900.0,
    "dmc/pendulum-swingup": 500.0,
}
TASKS = sorted(LEAST_RETURN)


def test_every_controller_is_tested_here_and_other_tasks_have_a_planner() -> None:
    experts = {task.name: task.default_expert for task in list_tasks("dmc")}
    assert sorted(name for name, expert in experts.items() if expert != "planner") == TASKS
    assert sorted(experts) == known_names("dmc") and all(experts.values())


@pytest.mark.parametrize("name", TASKS)
def test_an_episode_is_a_good_demonstration(name: str) -> None:
    env, expert = make(name), get_expert(name)
    episode = collect_episode(env, name, expert, seed=0)
    assert episode.steps == 1000 and episode.truncated
    assert episode.return_ > LEAST_RETURN[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_one_of_twenty_episodes_beats_random_play(name: str) -> None:
    env, expert = make(name), get_expert(name)
    experts = [collect_episode(env, name, expert, seed).return_ for seed in range(20)]
    randoms = [random_episode(env, name, seed).return_ for seed in range(20)]
    assert min(experts) > LEAST_RETURN[name]
    assert min(experts) > np.mean(randoms)


@pytest.mark.parametrize("name", ["dmc/cartpole-swingup", "dmc/reacher-easy"])
def test_experts_recover_from_long_bursts_of_random_actions(name: str) -> None:
    env, expert = make(name), get_expert(name)
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    rewards = []
    for step in range(1000):
        if step >= 200:
            action = expert.label(observation, env)
        elif step % 15 == 0:
            action = rng.uniform(-1.0, 1.0, env.action_space.shape)
        observation, reward, *_ = env.step(action)
        rewards.append(reward)
    assert np.mean(rewards[-100:]) > 0.95


@pytest.mark.parametrize("name", TASKS)
def test_labels_are_a_pure_function_of_any_observation(name: str) -> None:
    env = make(name)
    expert, fresh = get_expert(name), get_expert(name)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    for _ in range(50):
        label = expert.label(observation, env)
        assert env.action_space.contains(label)
        assert np.array_equal(label, fresh.label(observation, None))
        observation, *_ = env.step(env.action_space.sample())


def test_swing_up_has_no_jumps() -> None:
    """A small change of the observation changes the action a little: a clone can follow."""
    env, expert = make("dmc/cartpole-swingup"), get_expert("dmc/cartpole-swingup")
    observation, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(300):
        label = expert.label(observation, env)
        moved = {
            name: (value + 1e-5 * rng.standard_normal(value.shape)).astype(np.float32)
            for name, value in observation.items()
        }
        assert abs(expert.label(moved, env) - label).max() < 0.01
        observation, *_ = env.step(label)


def test_the_arm_s_geometry_follows_from_the_observation() -> None:
    """The target the expert infers from angles and to_target is the simulator's."""
    env, expert = make("dmc/reacher-hard"), get_expert("dmc/reacher-hard")
    for seed in range(2):
        observation, _ = env.reset(seed=seed)
        for _ in range(300):
            observation, *_ = env.step(expert.label(observation, env))
        assert np.linalg.norm(observation["to_target"]) < 0.002
