"""Bradley-Terry: known answers, and intervals that hold the truth."""

from __future__ import annotations

import numpy as np

from generalist.evaluation.bradley_terry import elo_of, ratings


def test_two_players_have_the_logarithm_of_their_odds() -> None:
    wins = np.array([[0, 30], [10, 0]])
    assert np.allclose(elo_of(wins, anchor=1, virtual_draws=0), [400 * np.log10(3), 0])
    assert np.allclose(elo_of(wins, anchor=1), [400 * np.log10(30.5 / 10.5), 0])


def test_expected_wins_give_back_the_strengths() -> None:
    elo = np.array([250.0, 0.0, -120.0, 60.0])
    chance = 1 / (1 + 10 ** ((elo[None] - elo[:, None]) / 400))
    wins = 100 * chance * (1 - np.eye(4))
    assert np.allclose(elo_of(wins, anchor=1, virtual_draws=0), elo, atol=1e-3)


def test_a_player_without_a_loss_stays_finite() -> None:
    elo = elo_of(np.array([[0, 100], [0, 0]]), anchor=1)
    assert 800 < elo[0] < 1000 and elo[1] == 0


def test_intervals_hold_the_truth_about_nineteen_times_in_twenty() -> None:
    random, elo = np.random.default_rng(0), np.array([100.0, 0.0, -50.0])
    pairs = np.array([(0, 1), (0, 2), (1, 2)] * 100)
    chance = 1 / (1 + 10 ** ((elo[pairs[:, 1]] - elo[pairs[:, 0]]) / 400))
    held = 0
    for trial in range(20):
        scores = (random.random(len(pairs)) < chance).astype(float)
        found = ratings(pairs, scores, players=3, anchor=1, resamples=100, seed=trial)
        assert (found.low <= found.elo).all() and (found.elo <= found.high).all()
        held += int((found.low[[0, 2]] <= elo[[0, 2]]).sum())
        held -= int((found.high[[0, 2]] < elo[[0, 2]]).sum())
    assert held >= 33  # of 40
