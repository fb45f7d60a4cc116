"""Returns-to-go, their bins, and what can be asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.tokenization.returns import Played, TaskReturns, returns_to_go

BINS = 256


def played(rewards: np.ndarray, discount: float = 1.0, truncated: bool = False) -> Played:
    to_go = returns_to_go(rewards, discount, truncated=truncated)
    return Played(float(np.sum(rewards)), to_go)


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("truncated", [False, True])
def test_a_return_to_go_is_the_reward_and_what_follows(discount: float, truncated: bool) -> None:
    rewards = np.random.default_rng(0).normal(size=50)
    to_go = returns_to_go(rewards, discount, truncated=truncated)
    np.testing.assert_allclose(to_go[:-1], rewards[:-1] + discount * to_go[1:])
    rest = rewards[-10:].mean() / (1 - discount) if truncated and discount < 1 else 0.0
    assert to_go[-1] == pytest.approx(rewards[-1] + discount * rest)


def test_an_episode_that_was_cut_goes_on_as_it_ended() -> None:
    """A pole that stood when time was up is worth at its last step what it was worth before."""
    np.testing.assert_allclose(returns_to_go(np.ones(500), 0.99, truncated=True), 100.0)


def test_bins_are_exact_to_half_a_width() -> None:
    rng = np.random.default_rng(1)
    found = TaskReturns.fit([played(rng.normal(size=30), 0.9) for _ in range(20)], 0.9, BINS)
    values = np.linspace(found.low, found.high, 1000)
    width = (found.high - found.low) / BINS
    assert np.abs(found.centres[found.encode(values)] - values).max() <= width / 2 * (1 + 1e-9)
    assert found.encode(np.array([found.low - 1, found.high + 1])).tolist() == [0, BINS - 1]


@pytest.mark.parametrize("outlier", [-1e9, 1e9])
def test_a_far_outlier_does_not_flatten_the_others(outlier: float) -> None:
    rng = np.random.default_rng(2)
    usual = [played(np.append(np.zeros(9), rng.uniform(0, 100))) for _ in range(100)]
    found = TaskReturns.fit([*usual, played(np.full(10, outlier))], 1.0, BINS)
    codes = found.encode(np.array([each.total for each in usual]))
    assert len(set(codes.tolist())) > 50


def test_without_outliers_the_bounds_are_the_extremes() -> None:
    rng = np.random.default_rng(3)
    episodes = [played(rng.uniform(-3, 5, 1)) for _ in range(300)]
    totals = [each.total for each in episodes]
    found = TaskReturns.fit(episodes, 1.0, BINS)
    assert (found.low, found.high) == (min(totals), max(totals))


def test_where_all_returns_are_the_same_there_is_nothing_to_ask_for() -> None:
    assert TaskReturns.fit([played(np.zeros(7)), played(np.zeros(3))], 0.99, BINS) is None


def test_levels_ascend_and_lead_from_returns_to_returns_to_go() -> None:
    rng = np.random.default_rng(4)
    episodes = [played(np.full(100, rng.uniform(-1, 1)), 0.9, True) for _ in range(500)]
    found = TaskReturns.fit(episodes, 0.9, BINS)
    totals, starts = zip(*found.levels, strict=True)
    assert (np.diff(totals) > 0).all() and (np.diff(starts) >= 0).all()
    for total in np.linspace(*found.range, 20):
        assert found.at_start(total) == pytest.approx(total / 100 * 10, abs=0.05)
    beyond = found.range[1] + 50
    assert found.at_start(beyond) == pytest.approx(beyond / 100 * 10, rel=0.02)


def test_where_all_episodes_return_the_same_a_return_beyond_is_still_a_number() -> None:
    """Successes after more or fewer steps: only the returns-to-go differ."""
    found = TaskReturns.fit([played(np.eye(n)[-1], 0.9) for n in (3, 5, 9)], 0.9, BINS)
    assert found.range == (1.0, 1.0)
    assert found.at_start(5.0) - found.at_start(1.0) == pytest.approx(4.0)
    assert found.encode(np.array([found.at_start(5.0), found.at_start(-3.0)])).tolist() == [255, 0]


def test_counting_down_follows_the_returns_to_go_of_an_episode() -> None:
    rewards = np.random.default_rng(5).uniform(0, 1, 40)
    to_go = returns_to_go(rewards, 0.95, truncated=False)
    found = TaskReturns(0.0, 20.0, 0.95, BINS, ((0.0, 0.0), (20.0, 20.0)))
    for now, reward, later in zip(to_go[:-1], rewards, to_go[1:], strict=False):
        assert found.after(now, reward) == pytest.approx(later)
    assert found.after(20.0, -5.0) == 20.0 and found.after(1.0, 5.0) == 0.0


def test_json_and_back() -> None:
    found = TaskReturns.fit([played(np.arange(9.0)), played(np.ones(4))], 1.0, BINS)
    assert TaskReturns.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(GeneralistError, match="describes no returns"):
        TaskReturns.from_dict({"low": 0})
