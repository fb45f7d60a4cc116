"""Meta-World: spaces, seeds, goals, success, and how an episode ends."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from generalist.envs import get_task, list_tasks, make
from generalist.envs import metaworld as family
from generalist.envs.rendering import offscreen_backend
from generalist.episode import tree_leaves
from generalist.errors import MissingPackageError, UsageError
from generalist.experts import collect_episode, get_expert, random_episode

# One object, two of them, and a goal that never moves.
NAMES = ["metaworld/pick-place", "metaworld/stick-pull", "metaworld/bin-picking"]


def trace(name: str, env: Any, seed: int, steps: int = 25) -> np.ndarray:
    """What is seen under seeded random actions, as rows of numbers."""
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=seed)
    rows = [observation]
    for _ in range(steps):
        rows.append(env.step(rng.uniform(-1, 1, 4).astype(np.float32))[0])
    return np.array([np.concatenate([leaf for _, leaf in tree_leaves(row)]) for row in rows])


def test_the_package_has_the_fifty_tasks_that_are_registered() -> None:
    registered = {task.name.partition("/")[2] for task in list_tasks("metaworld")}
    assert {name + family.VERSION for name in registered} == set(family._classes())
    assert len(registered) == 50


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_one_start_and_goal_in_a_new_and_in_a_used_environment(name: str) -> None:
    env = make(name)
    first, other = trace(name, env, 5), trace(name, env, 6)
    assert not np.array_equal(first[0], other[0])
    assert np.array_equal(first, trace(name, env, 5))
    assert np.array_equal(first, trace(name, make(name), 5))


@pytest.mark.parametrize("name", NAMES)
def test_observations_are_finite_and_in_their_space_whatever_is_done(name: str) -> None:
    env = make(name)
    observation, _ = env.reset(seed=0)
    low, high = env.observation_space["objects"].low, env.observation_space["objects"].high
    assert np.isfinite(low).all() and np.isfinite(high).all()
    for step in range(60):
        assert env.observation_space.contains(observation)
        observation, *_ = env.step(np.array([-1, -1, -1, 1] if step < 30 else [1, 1, 1, -1]))


def test_the_goal_is_in_the_header_and_in_the_observation() -> None:
    env = make("metaworld/reach")
    told = set()
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        words = info["instruction"]
        assert words.startswith("move the gripper to the goal; goal at ")
        millimetres = [int(word.strip(",")) for word in words.split()[-4:-1]]
        assert np.allclose(np.array(millimetres) / 1000, observation["goal"], atol=0.001)
        assert np.allclose(env.unwrapped.vector[-3:], observation["goal"], atol=1e-6)
        told.add(words)
    assert len(told) == 3


def test_a_goal_of_a_few_is_met_again_with_another_start_and_may_stay_unsaid() -> None:
    env = make("metaworld/push", goals=3, goal_seen=False)
    starts: dict[str, list[np.ndarray]] = {}
    for seed in range(12):
        observation, info = env.reset(seed=seed)
        assert "goal" not in observation
        assert env.observation_space.contains(observation)
        starts.setdefault(info["instruction"], []).append(observation["objects"][:2])
    assert len(starts) == 3
    for found in starts.values():
        assert len({tuple(start) for start in found}) == len(found)
    solved = collect_episode(env, "metaworld/push", get_expert("metaworld/push"), seed=1)
    assert solved.success is True
    flat, _ = make("metaworld/push", goal_seen=False, flat=True).reset(seed=0)
    assert (flat[-3:] == 0).all()
    with pytest.raises(UsageError, match="drawn apart from its start"):
        make("metaworld/button-press", goals=3)


def test_success_ends_an_episode_and_is_its_score() -> None:
    name = "metaworld/drawer-close"
    task, env = get_task(name), make(name)
    solved = collect_episode(env, name, get_expert(name), seed=0)
    assert solved.success is True and solved.terminated and solved.steps < 150
    assert task.score_of(solved.return_, solved.success) == 1.0
    # Its rewards are positive at every step, so a return above 0 is no success.
    failed = random_episode(env, name, seed=0, max_steps=20)
    assert failed.success is False and failed.return_ > 0
    assert task.score_of(failed.return_, failed.success) == 0.0


def test_to_the_end_goes_on_after_success_which_is_not_forgotten() -> None:
    name = "metaworld/reach"
    env = make(name, to_the_end=True, max_steps=120)
    episode = collect_episode(env, name, get_expert(name), seed=0)
    assert episode.steps == 120 and episode.truncated and not episode.terminated
    assert episode.success is True


def test_the_flat_observation_is_the_packages_own() -> None:
    env = make("metaworld/reach", flat=True)
    observation, _ = env.reset(seed=0)
    assert observation.shape == (39,) and env.observation_space.contains(observation)
    before = observation[:18].copy()
    observation, *_ = env.step(np.ones(4, np.float32))
    assert np.array_equal(observation[18:36], before)
    assert observation[:3] == pytest.approx(env.unwrapped.vector[:3])


def test_wrong_use_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("metaworld/reach")
    env.reset(seed=0)
    for action in (np.zeros(3), np.full(4, np.nan)):
        with pytest.raises(UsageError, match="shape \\(4,\\), all finite"):
            env.step(action)
    with pytest.raises(UsageError, match="1 to 500"):
        make("metaworld/reach", max_steps=501)
    with pytest.raises(UsageError, match="metaworld/reach-wall"):
        get_task("metaworld/reach_wall")

    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("metaworld"):
            raise ImportError(name)
        return real(name, *rest)

    family._classes.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match="\\[metaworld\\]"):
        make("metaworld/reach")


@pytest.mark.skipif(offscreen_backend() is None, reason="neither EGL nor OSMesa is installed")
def test_a_frame_shows_the_arm_move() -> None:
    env = make("metaworld/reach", render_mode="rgb_array", height=60, width=80)
    env.reset(seed=0)
    first = env.render()
    for _ in range(20):
        env.step(np.array([1, 0, -1, 0]))
    assert first.shape == (60, 80, 3) and first.dtype == np.uint8
    assert np.abs(env.render().astype(int) - first).max() > 50
    env.close()
