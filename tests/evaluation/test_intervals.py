"""Intervals that cover what they say, with few episodes and near success 1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from generalist.errors import GeneralistError
from generalist.evaluation.intervals import (
    Estimate,
    interquartile_mean,
    mean_stderr,
    optimality_gap,
    success_interval,
)

LEAST, MOST = 0.92, 0.995  # what intervals stated as 95% may cover
counts = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    # Training in this process may have told the CPU to flush subnormal numbers.
    return st.floats(low, high, allow_subnormal=False)


def success_coverage(chance: float, episodes: int) -> float:
    """How often the interval holds the true chance, over all outcomes with their weights."""
    covered = [
        low <= chance <= high
        for low, high in (success_interval(k, episodes) for k in range(episodes + 1))
    ]
    return float(stats.binom.pmf(range(episodes + 1), episodes, chance)[covered].sum())


@pytest.mark.parametrize("chance", [0.9, 0.95, 0.98])
def test_success_near_1_is_covered_as_stated(chance):
    assert LEAST <= success_coverage(chance, 20) <= MOST


@pytest.mark.parametrize("episodes", [1, 2, 3, 5, 10, 20, 50, 200])
def test_success_is_never_covered_less_than_stated(episodes):
    chances = np.concatenate([np.linspace(0, 1, 41), [0.001, 0.01, 0.99, 0.999]])
    assert min(success_coverage(chance, episodes) for chance in chances) >= 0.95 - 1e-9


@pytest.mark.parametrize("episodes", [2, 3, 5, 20, 100])
def test_normal_returns_are_covered_as_stated(episodes):
    rng = np.random.default_rng(episodes)
    hits = 0
    for values in rng.normal(2.0, 3.0, (2000, episodes)):
        low, high = Estimate.of(values).interval
        hits += low <= 2.0 <= high
    assert LEAST <= hits / 2000 <= MOST


@pytest.mark.parametrize("episodes", [5, 20])
def test_the_draws_of_a_mean_have_its_interval(episodes):
    rng = np.random.default_rng(1)
    estimate = Estimate.of(rng.normal(size=episodes))
    drawn = np.quantile(estimate.draws(rng, 200_000), (0.025, 0.975))
    np.testing.assert_allclose(drawn, estimate.interval, atol=0.02 * np.ptp(estimate.interval))
    # Success has Jeffreys' posterior, a little within the interval that never covers less.
    share = Estimate.of([1.0] * (episodes - 1) + [0.0], success=True)
    low, high = np.quantile(share.draws(rng, 200_000), (0.025, 0.975))
    assert share.interval[0] < low < share.mean < high < share.interval[1]


def test_twenty_successes_of_twenty_are_not_certain():
    certain = Estimate.of([1.0] * 20, success=True)
    assert certain.stderr == 0.0 and certain.error > 0.03
    low, high = certain.interval
    assert 0.8 < low < 0.9 and high == 1.0
    assert certain.draws(np.random.default_rng(0), 1000).std() > 0.02


def test_one_episode_has_no_known_error():
    assert mean_stderr([3.0]) == (3.0, None)
    one = Estimate.of([3.0])
    assert one.stderr is None and one.error is None and one.interval is None
    assert (one.draws(np.random.default_rng(0), 5) == 3.0).all()
    low, high = Estimate.of([1.0], success=True).interval
    assert 0.02 < low < 0.03 and high == 1.0


def test_no_episode_is_an_error():
    with pytest.raises(GeneralistError, match="at least one episode"):
        mean_stderr([])


def test_the_standard_error_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(size=400)
    mean, stderr = mean_stderr(values)
    assert mean == pytest.approx(values.mean())
    assert stderr == pytest.approx(stats.sem(values))


@given(counts)
def test_the_interval_of_success_holds_the_share_and_narrows_with_episodes(found):
    successes, episodes = found
    low, high = success_interval(successes, episodes)
    assert 0.0 <= low <= successes / episodes <= high <= 1.0
    wider = high - low
    low, high = success_interval(10 * successes, 10 * episodes)
    assert high - low < wider


@settings(deadline=None)
@given(st.lists(floats(-1e6, 1e6), min_size=2, max_size=30), floats(0.1, 10), floats(-100, 100))
def test_the_interval_of_returns_holds_the_mean_and_follows_the_unit(values, scale, shift):
    estimate = Estimate.of(values)
    low, high = estimate.interval
    assert low <= estimate.mean <= high
    other = Estimate.of([scale * value + shift for value in values]).interval
    expected = np.array([low, high]) * scale + shift
    np.testing.assert_allclose(other, expected, rtol=1e-6, atol=1e-6 * (1 + np.abs(expected).max()))


def test_the_interquartile_mean_ignores_both_ends():
    assert interquartile_mean(np.array([-1e9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e9])) == 3.5
    assert interquartile_mean(np.array([7.0])) == 7.0
    both = interquartile_mean(np.array([[0.0, 0.0, 4.0, 8.0], [1.0, 3.0, 5.0, 9.0]]))
    np.testing.assert_allclose(both, [2.0, 4.0])


def test_the_optimality_gap_counts_what_is_missing_to_1_alone():
    assert optimality_gap(np.array([0.5, 1.5, 1.0, 0.0])) == pytest.approx(1.5 / 4)
