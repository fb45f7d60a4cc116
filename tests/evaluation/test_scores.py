"""Scores: normalisation, intervals, exclusion, aggregates."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from generalist.envs import get_task
from generalist.envs.registry import Score, Task
from generalist.errors import GeneralistError
from generalist.evaluation.scores import (
    TaskScore,
    aggregate,
    is_above,
    normalize,
    score_task,
    with_error,
)

LEAST, MOST = 0.92, 0.995  # what intervals stated as 95% may cover


def measured(mean: float, stderr: float | None = 0.0, episodes: int = 50, **fields) -> Score:
    seeds = (0, episodes)
    return Score(mean, stderr, episodes, seeds, "2026-01-01", "measured by hand", **fields)


def estimated(rng: np.random.Generator, mean: float, spread: float, episodes: int) -> Score:
    """What so many normal episodes say of this true mean."""
    values = rng.normal(mean, spread, episodes)
    stderr = values.std(ddof=1) / np.sqrt(episodes)
    return measured(float(values.mean()), float(stderr), episodes)


def estimated_success(rng: np.random.Generator, chance: float, episodes: int) -> Score:
    """What so many episodes say of a policy that succeeds with this chance."""
    mean = rng.binomial(episodes, chance) / episodes
    stderr = np.sqrt(mean * (1 - mean) / (episodes - 1))
    return measured(float(mean), float(stderr), episodes)


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


def scored(name: str, values, random: Score, expert: Score, **fields) -> TaskScore:
    kind = dataclasses.replace(task(), name=name, random_score=random, expert_score=expert)
    return score_task(dataclasses.replace(kind, **fields), values)


def successes(name: str, solved: int, episodes: int) -> TaskScore:
    values = [1.0] * solved + [0.0] * (episodes - solved)
    return scored(name, values, measured(0.0), measured(1.0), metric="success")


def test_aggregates_are_taken_over_tasks_not_over_episodes():
    """Pooled episodes of ten tasks at 0.70 had an interquartile mean of 0.90."""
    total = aggregate([successes(f"task/{i}", 14, 20) for i in range(10)])
    for statistic in ("mean", "median", "iqm"):
        assert total[statistic] == pytest.approx(0.70)
        low, high = total[f"{statistic}_interval"]
        assert 0.6 < low < 0.70 < high < 0.8
    assert total["optimality_gap"] == pytest.approx(0.30)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(20, 40)), min_size=1, max_size=12))
def test_aggregates_are_those_of_the_means_whatever_the_numbers_of_episodes(found):
    means = np.array([solved / episodes for solved, episodes in found])
    total = aggregate([successes(f"task/{i}", *each) for i, each in enumerate(found)])
    assert total["mean"] == pytest.approx(means.mean())
    assert total["median"] == pytest.approx(np.median(means))
    assert total["iqm"] == pytest.approx(stats.trim_mean(means, 0.25))
    assert total["optimality_gap"] == pytest.approx(1 - means.mean())
    for statistic in ("mean", "median", "iqm", "optimality_gap"):
        low, high = total[f"{statistic}_interval"]
        assert low < high


def test_several_runs_of_a_task_are_scores_of_their_own():
    total = aggregate([successes("task/a", solved, 20) for solved in (2, 10, 12, 20)])
    assert total["mean"] == pytest.approx(0.55) and total["iqm"] == pytest.approx(0.55)
    assert total["tasks"] == ["task/a"] * 4


def more(*values) -> object:
    """Further values of a simulation that takes seconds: nothing else is looked at with them."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "tasks, episodes", [(1, 5), (1, 20), (10, 5), more(3, 5), more(3, 20), more(10, 20)]
)
def test_the_mean_over_tasks_is_covered_as_stated(tasks, episodes):
    rng = np.random.default_rng(tasks + episodes)
    truth = rng.uniform(0, 1, tasks)
    hits = 0
    for _ in range(200):
        scores = [
            scored(str(i), rng.normal(mean, 0.5, episodes), measured(0.0), measured(1.0))
            for i, mean in enumerate(truth)
        ]
        low, high = aggregate(scores)["mean_interval"]
        hits += low <= truth.mean() <= high
    assert LEAST <= hits / 200 <= MOST


@pytest.mark.parametrize("chance", [0.5, more(0.7), 0.9])
def test_the_mean_over_success_tasks_is_covered(chance):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        scores = [successes(str(i), rng.binomial(20, chance), 20) for i in range(5)]
        low, high = aggregate(scores)["mean_interval"]
        hits += low <= chance <= high
    assert hits / 200 >= LEAST


@pytest.mark.parametrize("episodes, random, expert", [(5, 10, 5), (20, 20, 20), (20, 10, 5)])
def test_normalised_returns_are_covered_with_the_errors_of_the_references(episodes, random, expert):
    rng = np.random.default_rng(episodes + expert)
    hits = 0
    for _ in range(400):
        values = rng.normal(60.0, 15.0, episodes)
        references = estimated(rng, 10.0, 10.0, random), estimated(rng, 110.0, 20.0, expert)
        low, high = scored("task/a", values, *references).normalized_interval
        hits += low <= 0.5 <= high
    assert LEAST <= hits / 400 <= MOST


@pytest.mark.parametrize(
    "chance, best",
    [(0.5, 0.97), (0.98, 0.97), (0.95, 1.0), (0.98, 1.0), more(0.9, 0.97), more(0.95, 0.97)]
    + [more(0.5, 1.0), more(0.9, 1.0)],
)
def test_normalised_success_is_covered_with_the_errors_of_the_references(chance, best):
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        values = rng.binomial(1, chance, 20).astype(float)
        references = estimated_success(rng, 0.2, 20), estimated_success(rng, best, 20)
        low, high = scored("task/a", values, *references, metric="success").normalized_interval
        hits += low <= (chance - 0.2) / (best - 0.2) <= high
    assert hits / 400 >= LEAST


def test_uncertain_references_widen_the_interval():
    values = [50.0, 60.0, 70.0, 65.0, 55.0]
    sure = scored("a", values, measured(10.0, 0.0), measured(110.0, 0.0))
    unsure = scored("a", values, measured(10.0, 5.0, 10), measured(110.0, 10.0, 5))
    assert sure.normalized == unsure.normalized == 0.5
    assert np.ptp(unsure.normalized_interval) > 1.2 * np.ptp(sure.normalized_interval)
    assert unsure.normalized_stderr > sure.normalized_stderr
    raw = np.array(sure.interval)
    np.testing.assert_allclose(sure.normalized_interval, (raw - 10) / 100, atol=0.02)


def test_a_single_episode_has_a_score_and_no_interval():
    score = score_task(task(), [60.0])
    assert score.normalized == 0.5 and score.stderr is None and score.interval is None
    assert score.normalized_interval is None and score.above_random is None
    total = aggregate([score, score_task(task(), [60.0, 61.0])])
    assert total["mean"] == pytest.approx(0.5025) and total["mean_interval"] is None


@pytest.mark.parametrize(
    "random, expert, words",
    [
        (measured(0.0, 0.1, 9), measured(1.0, 0.1, 5), "random was measured over 9 episodes"),
        (measured(0.0, 0.1, 10), measured(1.0, 0.1, 4), "expert was measured over 4 episodes"),
        (measured(0.0, 0.1), measured(1.0, None, 1), "expert was measured over 1 episode;"),
        (measured(0.0, 0.1), measured(1.0, 0.1, max_steps=4500), "cut after 4,500 steps"),
        (
            measured(0.0, 0.1, max_steps=9),
            measured(1.0, 0.1),
            "episodes cut after 9 steps",
        ),
        (measured(0.0, 0.5), measured(1.0, 0.5), "not better than random (0) beyond the errors"),
    ],
)
def test_a_score_is_not_normalised_by_references_that_are_not_fit_for_it(random, expert, words):
    score = scored("task/a", [0.5, 0.6], random, expert)
    assert score.normalized is None and words in score.excluded
    assert score.random.mean == random.mean and score.expert.mean == expert.mean


def test_a_changed_environment_has_no_normalised_score():
    score = score_task(task(), [60.0, 61.0, 62.0], changed="it was made with sticky 0")
    assert score.excluded == "it was made with sticky 0"
    assert score.normalized is None and score.above_random is None


def test_rows_with_another_instruction_are_left_out_of_the_aggregates():
    rows = [
        score_task(task(), [mean, mean + 1], instruction=instruction)
        for mean, instruction in ((59.5, "own"), (109.5, "none"), (109.5, "shuffled"))
    ]
    total = aggregate(rows)
    assert total["tasks"] == ["gym/CartPole-v1"] and total["mean"] == 0.5
    assert rows[1].normalized == 1.0 and rows[1].label == "gym/CartPole-v1 (none instruction)"


def test_the_expert_of_the_data_is_named_and_scored_beside_the_one_that_normalises():
    known = task(other_scores={"steady": measured(60.0, 1.0, expert="steady")})
    score = score_task(known, [35.0, 35.0], teacher="steady")
    assert score.teacher_score.mean == 60.0 and score.normalized == 0.25
    assert score.normalized_by_teacher == 0.5
    same = score_task(known, [35.0, 35.0], teacher="lqr")
    assert same.teacher == same.expert.name == "lqr" and same.normalized_by_teacher is None
    unknown = score_task(known, [35.0, 35.0], teacher="my.module:Expert")
    assert unknown.teacher_score is None and unknown.normalized_by_teacher is None


def test_errors_are_never_written_in_powers_of_ten():
    assert with_error(-654.34, 104.2) == "-654.3 ± 104"
    assert with_error(21.0, 0.4321) == "21 ± 0.43"
    assert with_error(99.0, None) == "99"
