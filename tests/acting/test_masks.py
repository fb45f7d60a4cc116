"""Environments that say which actions are legal see no other, whatever their action space is."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.acting.agent import Agent
from generalist.decoding.sampling import Sampling
from generalist.experts import RandomPolicy, demonstrate, random_episode
from generalist.session import EpisodeError, play
from generalist.tokenization.processor import GeneralistProcessor
from tests.decoding.models import tiny_model
from tests.masks import allowed, masks_of, nested_spaces

TASK = "own/Masked"
PROCESSOR = GeneralistProcessor.default()
MODEL = tiny_model(window=64, size=PROCESSOR.vocabulary.size)


class Masked(gymnasium.Env):
    """Says at each state which actions are legal, and counts those that were."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, action_space: spaces.Space, masks: list[Any]) -> None:
        self.action_space = action_space
        self.masks = masks
        self.legal = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {"action_mask": self.masks[0]}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        assert allowed(self.action_space, self.masks[self.steps], action), action
        self.legal += 1
        self.steps += 1
        over = self.steps == len(self.masks)
        info = {} if over else {"action_mask": self.masks[self.steps]}
        return np.zeros(1, np.float32), 0.0, over, False, info


def agent_for(env: gymnasium.Env, temperature: float = 1.0) -> Agent:
    layout = PROCESSOR.layout(env.observation_space, env.action_space)
    return Agent(MODEL, PROCESSOR, {"own/Masked": layout}, sampling=Sampling(temperature))


@st.composite
def environments(draw: st.DrawFn) -> Masked:
    space = draw(nested_spaces())
    return Masked(space, draw(st.lists(masks_of(space), min_size=1, max_size=3)))


@settings(max_examples=50, deadline=None)
@given(env=environments(), temperature=st.sampled_from([0.0, 1.0]), seed=st.integers(0, 1000))
def test_an_agent_takes_legal_actions_of_any_space(
    env: Masked, temperature: float, seed: int
) -> None:
    agent = agent_for(env, temperature)
    other = Masked(env.action_space, [None] * 3)  # beside it, without masks
    traces = list(play(agent, [env, other], [seed, seed + 1], task=TASK))
    assert {trace.steps for trace in traces} == {len(env.masks), 3}
    assert env.legal == len(env.masks) and other.legal == 3


@settings(max_examples=100, deadline=None)
@given(env=environments(), noise=st.sampled_from([0.0, 0.5, 1.0]), seed=st.integers(0, 1000))
def test_random_play_and_disturbed_play_are_legal(env: Masked, noise: float, seed: int) -> None:
    who = RandomPolicy(env.action_space)
    episode = demonstrate(who, env, TASK, seed, noise=noise, burst_steps=2)
    assert episode.steps == env.legal == len(env.masks)


BAD = [
    (spaces.Discrete(3), np.zeros(3, np.int8), "action .*allows none of 3"),
    (spaces.Discrete(3), np.ones(4, np.int8), r"action .*shape \(4,\)"),
    (spaces.MultiDiscrete([2, 3]), (np.ones(2, np.int8), np.zeros(3, np.int8)), r"action\[1\]"),
    (spaces.Dict({"keys": spaces.MultiBinary(2)}), {"keys": np.array([3, 0])}, "action/keys"),
]


@pytest.mark.parametrize(("space", "mask", "says"), BAD)
def test_a_mask_that_cannot_be_obeyed_names_task_field_and_step(
    space: spaces.Space, mask: Any, says: str
) -> None:
    """At the third state. Gymnasium itself takes the smallest action where nothing is allowed."""
    where = f"own/Masked, seed 7, step 2: .*{says}"
    with pytest.raises(EpisodeError, match=where):
        random_episode(Masked(space, [None, None, mask]), "own/Masked", 7)
    env = Masked(space, [None, None, mask])
    with pytest.raises(EpisodeError, match=where):
        list(play(agent_for(env), [env], [7], task=TASK))
