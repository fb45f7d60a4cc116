"""Zipf's law: a known exponent is found within its interval, and too few visits are refused."""

from __future__ import annotations

import numpy as np
import pytest

from generalist.analysis.zipf import Visits, fit_zipf, random_games, visits_of
from generalist.cli.main import main
from generalist.envs.board_view import BoardView
from generalist.errors import GeneralistError


def sample(exponent: float, games: int, seed: int = 0) -> Visits:
    """Games of twenty independent states each, whose frequencies follow the law."""
    random = np.random.default_rng(seed)
    ranks = np.arange(1, 50_001)
    chance = ranks**-exponent
    states = random.choice(len(ranks), size=games * 20, p=chance / chance.sum())
    return Visits(states, np.repeat(np.arange(games), 20))


@pytest.mark.parametrize("exponent", [0.9, 1.1])
def test_the_exponent_of_a_synthetic_sample_lies_in_its_interval(exponent: float) -> None:
    fit = fit_zipf(sample(exponent, 20_000), resamples=100)
    for found, (low, high) in (
        (fit.likelihood, fit.likelihood_interval),
        (fit.slope, fit.slope_interval),
    ):
        assert low < exponent < high and abs(found - exponent) < 0.02
    assert fit.visits == 400_000 and fit.ranks[0] == 10 and fit.ranks[1] > 1_000


def test_too_few_visits_are_refused() -> None:
    with pytest.raises(GeneralistError, match="too few for a fit.*Play more games"):
        fit_zipf(sample(1.0, 40))


def test_states_of_random_games_are_counted() -> None:
    pytest.importorskip("pyspiel")
    view = BoardView.named("TicTacToe")
    games = list(random_games(view, 300, seed=1))
    visits = visits_of(view, games)
    assert len(visits.state) == sum(map(len, games)) and visits.games == 300
    assert np.bincount(visits.state)[0] == 300  # the first state, once a game
    assert len(set(visits.state[visits.game == 0])) == len(games[0])


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "zipf"]) == 2
    assert main(["analyze", "zipf", "no-such-run"]) == 2
    assert "There is no record of games" in capsys.readouterr().err
