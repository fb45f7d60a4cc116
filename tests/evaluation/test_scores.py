"""Scores: normalisation, intervals, exclusion, aggregates."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.envs import get_task
from generalist.envs.registry import Score, Task
from generalist.errors import GeneralistError
from generalist.evaluation.scores import (
    TaskScore,
    aggregate,
    bootstrap_interval,
    interquartile_mean,
    is_above,
    mean_stderr,
    normalize,
    score_task,
    stratified_bootstrap,
    with_error,
)


def measured(mean: float, stderr: float = 0.0) -> Score:
    return Score(mean, stderr, 50, (0, 50), "2026-01-01", "measured by hand")


def task(random: float | None = 10.0, expert: float | None = 110.0, **fields) -> Task:
    return dataclasses.replace(
        get_task("gym/CartPole-v1"),
        random_score=None if random is None else measured(random, 1.0),
        expert_score=None if expert is None else measured(expert),
        **fields,
    )


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    # Training in this process may have told the CPU to flush subnormal numbers.
    return st.floats(low, high, allow_subnormal=False)


@settings(deadline=None)
@given(
    floats(-1e3, 1e3), floats(0.1, 1e3), floats(0.1, 100), floats(-100, 100),
    st.lists(floats(-1e3, 1e3), min_size=1, max_size=20),
)  # fmt: skip
def test_normalised_scores_do_not_depend_on_the_unit(random, gap, scale, shift, values):
    values = np.array(values)
    plain = normalize(values, random, random + gap)
    other = normalize(values * scale + shift, random * scale + shift,
                      (random + gap) * scale + shift)  # fmt: skip
    np.testing.assert_allclose(plain, other, rtol=1e-6, atol=1e-6 * (1 + np.abs(plain).max()))


def test_random_is_0_and_expert_is_1():
    np.testing.assert_allclose(normalize(np.array([10.0, 110.0, 60.0]), 10, 110), [0, 1, 0.5])
    with pytest.raises(GeneralistError, match="not above random"):
        normalize(np.array([1.0]), 5, 5)


def test_stderr_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(size=400)
    mean, stderr = mean_stderr(values)
    assert mean == pytest.approx(values.mean())
    assert stderr == pytest.approx(1 / np.sqrt(400), rel=0.15)
    assert mean_stderr([3.0]) == (3.0, 0.0)
    with pytest.raises(GeneralistError, match="at least one episode"):
        mean_stderr([])


def test_the_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(300):
        low, high = bootstrap_interval(rng.normal(2.0, 3.0, size=40), seed=trial)
        hits += low <= 2.0 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_the_interval_of_normal_values_is_the_known_one():
    values = np.random.default_rng(2).normal(size=500)
    low, high = bootstrap_interval(values)
    half = 1.96 / np.sqrt(500)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


@settings(max_examples=30, deadline=None)
@given(st.lists(floats(-5, 5), min_size=1, max_size=30))
def test_the_interval_holds_the_mean_and_stays_within_the_values(values):
    low, high = bootstrap_interval(values)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_the_bootstrap_is_stratified():
    """Two tasks without any spread of their own have a mean without spread."""
    point, interval = stratified_bootstrap([np.zeros(10), np.ones(30)])
    assert point == 0.5 and interval == (0.5, 0.5)


def test_every_task_weighs_the_same_in_the_mean():
    point, _ = stratified_bootstrap([np.zeros(1), np.ones(99)])
    assert point == 0.5


def test_interquartile_mean_ignores_both_ends():
    assert interquartile_mean(np.array([-1e9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e9])) == 3.5
    assert interquartile_mean(np.array([7.0])) == 7.0


def test_a_task_is_scored_raw_and_normalised():
    score = score_task(task(), [60.0, 62.0, 58.0, 60.0], seeds=[1, 2, 3, 4])
    assert score.mean == 60.0 and score.normalized == pytest.approx(0.5)
    assert score.above_random is True and score.excluded is None
    assert score.interval[0] <= 60.0 <= score.interval[1]


def test_not_above_random_where_the_intervals_overlap():
    assert score_task(task(), [11.0, 9.0, 13.0, 10.0]).above_random is False
    assert is_above((2, 3), (0, 1))
    assert not is_above((1, 3), (0, 1)) and not is_above((0, 1), (2, 3))


@pytest.mark.parametrize(
    "random, expert, words",
    [(10, 10, "not better than random"), (10, 5, "not better than random"),
     (None, 10, "random"), (10, None, "expert")],
)  # fmt: skip
def test_a_task_without_a_scale_is_excluded_and_named(random, expert, words):
    score = score_task(task(random, expert), [7.0, 8.0])
    assert score.normalized is None and words in score.excluded
    total = aggregate([score, score_task(task(), [110.0, 110.0])])
    assert total["excluded"] == {"gym/CartPole-v1": score.excluded}
    assert total["mean"] == pytest.approx(1.0) and len(total["tasks"]) == 1


def test_success_is_what_the_environment_says_or_a_positive_return():
    solving = task(0.0, 1.0, metric="success")
    assert [solving.score_of(r, None) for r in (0.9, 0.0, 0.2, -1.0)] == [1.0, 0.0, 1.0, 0.0]
    assert solving.score_of(900.0, success=False) == 0.0 and solving.score_of(0.0, True) == 1.0
    assert task(0.0, 1.0).score_of(900.0, success=False) == 900.0


def test_a_score_survives_json():
    score = score_task(task(), [60.0, 62.0], seeds=[5, 6], prompted=True)
    again = TaskScore.from_dict(json.loads(json.dumps(score.to_dict())))
    assert again == score


def test_an_aggregate_of_nothing_has_no_mean():
    assert aggregate([]) == {"tasks": [], "excluded": {}}


def test_errors_are_never_written_in_powers_of_ten():
    assert with_error(-654.34, 104.2) == "-654.3 ± 104"
    assert with_error(21.0, 0.4321) == "21 ± 0.43"
    assert with_error(99.0, None) == "99"
