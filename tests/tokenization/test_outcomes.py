"""Outcomes: rewards as bins whose means are unbiased, and what lies after a step."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from generalist.errors import GeneralistError
from generalist.tokenization.outcomes import RewardBins, TaskWorld
from generalist.tokenization.returns import Played, TaskReturns, returns_to_go


@given(arrays(np.float64, st.integers(1, 600), elements=st.floats(-1e4, 1e4, width=32)))
def test_bins_are_few_and_keep_the_mean(rewards: np.ndarray) -> None:
    bins = RewardBins.fit(rewards, 64)
    codes = bins.encode(rewards)
    assert len(bins.means) == len(bins.edges) + 1 <= 64
    assert set(codes.tolist()) == set(range(len(bins.means))), "no bin is empty"
    assert (np.diff(bins.centres) > 0).all() and (np.diff(bins.edges) > 0).all()
    scale = max(1.0, np.abs(rewards).max())
    assert bins.centres[codes].mean() == pytest.approx(rewards.mean(), abs=1e-9 * scale)
    if len(np.unique(rewards)) <= 64:
        np.testing.assert_allclose(bins.centres[codes], rewards, atol=1e-9 * scale)


def test_one_large_reward_among_many_small_ones_is_not_lost() -> None:
    small = -0.1 * np.random.default_rng(0).uniform(0, 1, 50_000)
    bins = RewardBins.fit(np.append(small, [100.0, 100.0]), 256)
    codes = bins.encode(np.array([100.0, -0.05, 0.0]))
    assert bins.centres[codes[0]] == 100 and abs(bins.centres[codes[1:]]).max() < 0.06


@pytest.mark.parametrize("is_over", [False, True])
def test_what_lies_after_a_step_is_the_return_of_the_next(is_over: bool) -> None:
    rewards = np.array([1.0, 2.0, 4.0, -3.0])
    to_go = returns_to_go(rewards, 0.5, truncated=not is_over)
    returns = TaskReturns.fit([Played(4.0, np.linspace(-10, 10, 9))], 0.5, 256)
    world = TaskWorld(returns, RewardBins.fit(rewards, 256))
    codes = world.encode(rewards, to_go, is_over=is_over)
    assert codes[:, 0].tolist() == [0, 0, 0, int(is_over)]
    np.testing.assert_array_equal(world.rewards.centres[codes[:, 1]], rewards)
    # Cut, it is taken to go on at the mean of its last 2 steps for 2 steps.
    after = np.append(to_go[1:], 0.0 if is_over else 0.5 / 0.5)
    assert np.abs(returns.centres[codes[:, 2]] - after).max() < 0.05
    again = TaskWorld.from_dict(json.loads(json.dumps(world.to_dict())))
    assert again == world
    with pytest.raises(GeneralistError, match="describes no outcomes"):
        TaskWorld.from_dict({"returns": returns.to_dict()})
