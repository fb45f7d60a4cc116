"""Nobody who acts knows what the environment is about to draw."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.seeding import np_random
from hypothesis import given
from hypothesis import strategies as st

import generalist
from generalist.acting.rollout import dagger_episodes, rollout
from generalist.decoding.sampling import Sampling
from generalist.experts import RandomPolicy, demonstrate
from generalist.streams import Stream, random_stream
from tests.coin import TASK, TASK_OF_NUMBERS
from tests.decoding.models import tiny_agent

EPISODES, TOLERANCE = 40, 0.04  # five standard errors of 4,000 fair bets


@given(seed=st.integers(0, 2**64), stream=st.sampled_from(Stream))
def test_no_stream_is_the_environments_own_nor_another(seed: int, stream: Stream) -> None:
    streams = [np_random(seed)[0], *(random_stream(seed, each) for each in Stream)]
    draws = [set(rng.integers(2**63, size=100).tolist()) for rng in streams]
    assert not any(a & b for a, b in itertools.combinations(draws, 2))
    again = set(random_stream(seed, stream).integers(2**63, size=100).tolist())
    assert again == draws[1 + list(Stream).index(stream)]


@given(seed=st.integers(0, 2**32), stream=st.sampled_from(Stream))
def test_a_stream_says_nothing_of_the_environments(seed: int, stream: Stream) -> None:
    ours, theirs = random_stream(seed, stream).random(2000), np_random(seed)[0].random(2000)
    assert abs(np.corrcoef(ours, theirs)[0, 1]) < 0.15  # more than six standard errors


@pytest.mark.parametrize("task", [TASK, TASK_OF_NUMBERS])
@pytest.mark.parametrize("temperature", [0.0, 1.0, 100.0])
def test_an_agent_wins_half_of_the_bets_on_a_coin_tossed_after_the_bet(
    task: str, temperature: float
) -> None:
    agent = tiny_agent(task, sampling=Sampling(temperature))
    result = rollout(agent, episodes=EPISODES, seed=0, progress=False)
    assert np.mean(result.returns) / 100 == pytest.approx(0.5, abs=TOLERANCE)


def test_corrections_are_of_episodes_that_win_half_of_the_bets() -> None:
    agent = tiny_agent(TASK, sampling=Sampling(100.0))
    episodes = dagger_episodes(
        agent, episodes=EPISODES, seed=0, expert="tests.test_streams:Heads", progress=False
    )
    assert np.mean([each.return_ for each in episodes]) / 100 == pytest.approx(0.5, abs=TOLERANCE)


class Heads:
    """An expert that bets on one side."""

    def reset(self, env: gymnasium.Env, seed: int) -> None: ...

    def label(self, observation: np.ndarray, env: gymnasium.Env) -> np.int64:
        return np.int64(1)


@pytest.mark.parametrize("task", [TASK, TASK_OF_NUMBERS])
@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_random_play_and_noise_win_half_of_the_bets(task: str, noise: float) -> None:
    env = generalist.make(task)
    who = RandomPolicy(env.action_space)
    returns = [demonstrate(who, env, task, seed, noise=noise).return_ for seed in range(EPISODES)]
    assert np.mean(returns) / 100 == pytest.approx(0.5, abs=TOLERANCE)


def test_noise_is_independent_of_a_random_demonstrator() -> None:
    env = generalist.make(TASK)
    who = RandomPolicy(env.action_space)
    pairs = [demonstrate(who, env, TASK, seed, noise=1.0) for seed in range(EPISODES)]
    same = np.mean([each.actions == each.labels for each in pairs])
    assert same == pytest.approx(0.5, abs=TOLERANCE)


def test_the_training_of_experts_explores_with_random_numbers_of_its_own() -> None:
    from generalist.experts import learning
    from generalist.experts.recipes import Recipe

    recipe = Recipe(0, 1, {"learning_starts": 1000}, network=(8,))
    model = learning._trained(TASK_OF_NUMBERS, "sac", recipe, steps=600, seed=0, progress=False)
    bets = model.replay_buffer.rewards[:600].mean()
    assert bets == pytest.approx(0.5, abs=0.1)


def test_whoever_acts_draws_from_a_named_stream_alone() -> None:
    package = Path(generalist.__file__).parent
    for station in ("planning", "experts", "decoding", "acting"):
        for path in (package / station).rglob("*.py"):
            drawn = re.findall(r"default_rng|RandomState|np\.random\.seed", path.read_text("utf-8"))
            assert not drawn, f"{path} draws from a stream without a name"
