"""Atari scores beside a human player's."""

from __future__ import annotations

import pytest

from generalist.envs import get_task
from generalist.evaluation.human import HUMAN, human_line, human_normalized
from generalist.evaluation.scores import score_task
from generalist.evaluation.suite import load_suite


def test_random_play_is_zero_the_human_one_and_halfway_a_half() -> None:
    scores = []
    for (task, (floor, human)), share in zip(list(HUMAN.items())[:3], (0.0, 0.5, 1.0), strict=True):
        value = floor + share * (human - floor)
        scores.append(score_task(get_task(task), [value - 1, value, value + 1]))
    found = human_normalized(scores)
    assert [game["normalized"] for game in found["games"].values()] == pytest.approx([0, 0.5, 1])
    assert found["median"] == pytest.approx(0.5) and found["mean"] == pytest.approx(0.5)
    for game in found["games"].values():
        low, high = game["interval"]
        assert low < game["normalized"] < high
    low, high = found["median_interval"]
    assert low < 0.5 < high
    assert "3 of 26 Atari games" in human_line(found)


def test_games_at_the_humans_level_are_counted_and_others_left_out() -> None:
    scores = [
        score_task(get_task("atari/Boxing"), [50.0]),
        score_task(get_task("atari/Alien"), [100.0]),
        score_task(get_task("gym/CartPole-v1"), [500.0]),
        score_task(get_task("atari/Boxing"), [50.0], instruction="none"),
        score_task(get_task("atari/Assault"), [900.0, 950.0], changed="its episodes were cut"),
    ]
    found = human_normalized(scores)
    assert list(found["games"]) == ["atari/Boxing", "atari/Alien"]
    assert found["at_human_level"] == 1
    assert found["mean_interval"] is None  # single episodes tell no error
    several = score_task(get_task("atari/Boxing"), [50.0, 52.0, 51.0])
    games = human_normalized([several, scores[1]])["games"]
    assert games["atari/Boxing"]["interval"] == human_normalized([several])["mean_interval"]
    assert games["atari/Alien"]["interval"] is None


def test_without_a_game_there_is_nothing_to_say() -> None:
    assert human_line(human_normalized([])) == ""


def test_the_suite_has_exactly_these_games() -> None:
    assert [task.task for task in load_suite("atari26").tasks] == list(HUMAN)
