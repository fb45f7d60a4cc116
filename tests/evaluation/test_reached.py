"""How many tasks reach each percentage of the expert."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.envs import get_task
from generalist.evaluation.plots import reached_plot
from generalist.evaluation.reached import HALF, PERCENT, half_line, reached
from generalist.evaluation.scores import TaskScore, score_task

shares = st.lists(st.floats(-1, 2), max_size=8)


def score(task: str, share: float | None) -> TaskScore:
    return TaskScore(task, [0.0], 0.0, 0.0, (0.0, 0.0), [], normalized=share)


@given(shares, shares)
def test_counts_fall_and_families_add_up(gym: list[float], dmc: list[float]) -> None:
    scores = [score(f"gym/{i}", share) for i, share in enumerate(gym)]
    scores += [score(f"dmc/{i}", share) for i, share in enumerate(dmc)]
    found = reached([*scores, score("gym/unknown", None)])
    counts = found["counts"]
    assert counts == sorted(counts, reverse=True) and found["tasks"] == len(gym) + len(dmc)
    assert counts[0] == sum(round(share, 9) >= 0 for share in gym + dmc)
    by_family = [each["counts"] for each in found["families"].values()]
    assert counts == [sum(column) for column in zip(*by_family, strict=True)] or not by_family


def test_the_expert_itself_is_at_a_hundred_percent_and_random_at_zero() -> None:
    task = get_task("gym/Pendulum-v1")
    assert task.random_score is not None and task.expert_score is not None
    own = [score_task(task, [each.mean]) for each in (task.random_score, task.expert_score)]
    assert reached(own[:1])["counts"] == [1, *[0] * (len(PERCENT) - 1)]
    assert reached(own[1:])["counts"] == [1] * len(PERCENT)
    assert half_line(reached(own)) == "1 of 2 tasks (gym 1 of 2)" and PERCENT[HALF] == 50


@pytest.mark.parametrize("families", [1, 10])
def test_the_plot_names_every_family(families: int) -> None:
    svg = reached_plot(reached([score(f"family{i}/a", i / 9) for i in range(families)]))
    assert svg.startswith("<svg") and all(f"family{i} (1)" in svg for i in range(families))
