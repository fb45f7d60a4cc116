import numpy as np
import pytest

from generalist.evaluation.plots import reliability_plot
from generalist.evaluation.reliability import reliability


def test_groups_are_of_equal_size_and_ascend():
    rng = np.random.default_rng(0)
    values, episodes = rng.normal(size=103), rng.integers(0, 9, size=103)
    groups = reliability(values, 3 * values, episodes, 10)
    assert [each.steps for each in groups] == 3 * [11] + 7 * [10]
    means = [each.value for each in groups]
    assert means == sorted(means)
    assert [each.followed for each in groups] == pytest.approx([3 * mean for mean in means])
    few = reliability(values[:4], values[:4], episodes[:4], 10)
    assert [each.steps for each in few] == [1, 1, 1, 1]


def test_of_one_step_an_episode_the_interval_is_students():
    followed = np.random.default_rng(1).normal(5, 2, size=12)
    (group,) = reliability(np.zeros(12), followed, np.arange(12), 1)
    error = followed.std(ddof=1) / 12**0.5
    low, high = group.interval
    assert (low + high) / 2 == pytest.approx(followed.mean())
    assert high - low == pytest.approx(2 * 2.200985 * error)  # t of 11 degrees of freedom


def test_steps_of_an_episode_are_one_observation():
    """Each step ten times tells nothing new, so the interval stays; taken as steps it shrinks."""
    followed = np.random.default_rng(2).normal(size=8)
    (once,) = reliability(np.zeros(8), followed, np.arange(8), 1)
    again, owner = np.repeat(followed, 10), np.repeat(np.arange(8), 10)
    (often,) = reliability(np.zeros(80), again, owner, 1)
    assert often.interval == pytest.approx(once.interval) and often.episodes == 8
    (apart,) = reliability(np.zeros(80), again, np.arange(80), 1)
    assert np.diff(apart.interval) < 0.5 * np.diff(once.interval)


def test_one_episode_has_no_interval_and_is_drawn_all_the_same():
    alone = reliability(np.arange(20.0), np.arange(20.0) ** 2, np.zeros(20, int), 4)
    assert all(each.interval is None and each.episodes == 1 for each in alone)
    picture = reliability_plot({"gym/Alone-v0": alone, "gym/Other-v0": alone[:1]})
    assert picture.startswith("<svg") and ">Alone-v0<" in picture and ">Other-v0<" in picture
