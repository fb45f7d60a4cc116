"""Other instructions than an episode's own: none, and another episode's."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from generalist.envs import make
from generalist.envs.instructions import OtherInstruction
from generalist.errors import GeneralistError, UsageError

TASK = "babyai/GoToLocal"


def told(instructions: str, seed: int) -> tuple[np.ndarray, str | None]:
    env = make(TASK, instructions=instructions)
    observation, info = env.reset(seed=seed)
    return observation, info.get("instruction")


def test_shuffled_is_another_episodes_and_the_episode_stays_its_own() -> None:
    for seed in range(20):
        seen, own = told("own", seed)
        shown, other = told("shuffled", seed)
        assert own is not None and other is not None and other != own
        np.testing.assert_equal(shown, seen)
        assert told("shuffled", seed)[1] == other


def test_the_reward_is_for_what_the_episode_asks_whatever_is_said() -> None:
    returns = []
    for instructions in ("own", "none", "shuffled"):
        env = make(TASK, instructions=instructions)
        env.reset(seed=3)
        mission = env.unwrapped.mission
        actions = np.random.default_rng(0).integers(3, size=60)
        outcomes = [env.step(int(action))[:3] for action in actions]
        returns.append((mission, [outcome[1:] for outcome in outcomes]))
    assert returns[0] == returns[1] == returns[2]


def test_shuffled_instructions_are_of_many_kinds() -> None:
    env = make(TASK, instructions="shuffled")
    assert len({env.reset(seed=seed)[1]["instruction"] for seed in range(30)}) > 5


def test_none_says_nothing() -> None:
    assert all(told("none", seed)[1] is None for seed in range(3))


def test_what_is_shown_is_not_said() -> None:
    for which, same_as in (("shown", "own"), ("shown-shuffled", "shuffled")):
        for seed in range(3):
            seen, expected = told(same_as, seed)
            observation, info = make(TASK, instructions=which).reset(seed=seed)
            np.testing.assert_equal(observation, seen)
            assert "instruction" not in info
            assert info["demonstrated"] == expected


def test_where_nothing_can_be_replaced_it_is_said() -> None:
    with pytest.raises(GeneralistError, match="no instruction"):
        make("gym/CartPole-v1", instructions="none").reset(seed=0)
    with pytest.raises(GeneralistError, match="give one"):
        make(TASK, instructions="shuffled").reset()
    with pytest.raises(UsageError, match="own, none, shuffled"):
        make(TASK, instructions="other")  # type: ignore[arg-type]

    class Same(gymnasium.Wrapper):
        def reset(self, **kwargs):
            observation, info = self.env.reset(**kwargs)
            return observation, {**info, "instruction": "go"}

    with pytest.raises(GeneralistError, match="same instruction, 'go'"):
        OtherInstruction(Same(make(TASK)), "shuffled").reset(seed=0)
