"""Scores on the scale of D4RL."""

from __future__ import annotations

import pytest

from generalist.envs import get_task
from generalist.evaluation.d4rl import PUBLISHED, d4rl_line, d4rl_scores, scale_of
from generalist.evaluation.scores import score_task
from generalist.evaluation.sections import d4rl_section

HOPPER, CHEETAH, WALKER = "gym/Hopper-v5", "gym/HalfCheetah-v5", "gym/Walker2d-v5"


@pytest.mark.parametrize("task", PUBLISHED)
def test_random_play_is_0_and_the_expert_100(task: str) -> None:
    scale = PUBLISHED[task]
    assert scale.of(scale.random) == 0 and scale.of(scale.expert) == 100
    assert scale.of((scale.random + scale.expert) / 2) == pytest.approx(50)
    assert scale_of(task) is scale and get_task(task).name == task


def test_a_return_of_3000_in_hopper_is_what_d4rl_makes_of_it() -> None:
    assert scale_of(HOPPER).of(3000) == pytest.approx(100 * 3020.272305 / 3254.572305)


def test_other_tasks_have_the_registrys_references_or_none() -> None:
    task = get_task(WALKER)
    scale = scale_of(WALKER)
    assert scale.source == f"registry, {task.expert_score.expert}"
    assert scale.of(500.0) == pytest.approx(100 * task.normalized(500.0))
    assert get_task("gym/Blackjack-v1").references is None
    assert scale_of("gym/Blackjack-v1") is None


def test_only_whole_episodes_of_tasks_with_published_references_count() -> None:
    old = get_task("gym/Walker2d-v4")
    assert old.not_normalized  # the registry has not measured it, D4RL has
    scores = [
        score_task(get_task(HOPPER), [1000.0, 2000.0]),
        score_task(get_task(CHEETAH), [1000.0], changed="its episodes were cut"),
        score_task(get_task(WALKER), [1000.0]),
        score_task(old, [1000.0]),
        score_task(get_task(HOPPER), [0.0], instruction="none"),
    ]
    found = d4rl_scores(scores)
    assert found == {
        HOPPER: pytest.approx(100 * (1500 + 20.272305) / (3234.3 + 20.272305)),
        "gym/Walker2d-v4": pytest.approx(100 * (1000 - 1.629008) / (4592.3 - 1.629008)),
    }
    line = d4rl_line(found)
    assert "gym/Hopper-v5 46.7" in line and "mean 34.2" in line
    assert "<b>46.7</b>" in d4rl_section(found)
    assert d4rl_line({}) == d4rl_section({}) == ""
