"""Strengths from games: Bradley-Terry by maximum likelihood, with intervals by the bootstrap.

The chance that i beats j is s_i / (s_i + s_j) (Bradley and Terry 1952); a draw counts as half a win
of each. Elo is 400 log10 s. Players who won or lost all their games would have infinite Elo, so
each pair that met is given `virtual_draws` more draws, as is usual; 0 gives the plain maximum.

Legend: P = players, N = games, R = resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ELO = 400 / np.log(10)
_MOST_ROUNDS = 10_000
_TOLERANCE = 1e-9  # of a strength's logarithm, between two rounds


@dataclass(frozen=True)
class Ratings:
    """Elo of P players.

    Attributes:
        elo: (P,) that of the anchor is 0.
        low: (P,) lower end of the interval.
        high: (P,) upper end.
    """

    elo: np.ndarray
    low: np.ndarray
    high: np.ndarray


def elo_of(wins: np.ndarray, anchor: int, virtual_draws: float = 1.0) -> np.ndarray:
    """(P,) Elo of the players, that of the anchor 0.

    By minorisation-maximisation (Hunter 2004, equation 3), which climbs at every round.

    Args:
        wins: (P, P) wins of each over each, draws as halves.
        anchor: number of the player with Elo 0.
        virtual_draws: draws added to each pair that met.
    """
    met = wins + wins.T > 0
    wins = wins + 0.5 * virtual_draws * met
    games, won = wins + wins.T, wins.sum(axis=1)
    strength = np.ones(len(wins))
    for _ in range(_MOST_ROUNDS):
        met_strength = games / (strength[:, None] + strength)
        new = won / np.maximum(met_strength.sum(axis=1), 1e-300)
        new = np.maximum(new / new[anchor], 1e-30)
        moved = np.abs(np.log(new / strength)).max()
        strength = new
        if moved < _TOLERANCE:
            break
    return _ELO * np.log(strength)


def ratings(
    pairs: np.ndarray,
    scores: np.ndarray,
    *,
    players: int,
    anchor: int,
    virtual_draws: float = 1.0,
    resamples: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> Ratings:
    """Elo of players from their games, with percentile intervals of a bootstrap over games.

    Games are drawn again within each pair, because their number was fixed.

    Args:
        pairs: (N, 2) numbers of the two players.
        scores: (N,) of the first of them: 1, 0.5 or 0.
        players: P.
        anchor: number of the player with Elo 0.
        virtual_draws: as `elo_of` takes them.
        resamples: R.
        level: of the intervals.
        seed: of the bootstrap.
    """
    random = np.random.default_rng(seed)
    groups = [
        np.flatnonzero((np.sort(pairs, axis=1) == pair).all(axis=1))
        for pair in np.unique(np.sort(pairs, axis=1), axis=0)
    ]
    found = np.empty((resamples, players))
    for row in range(resamples):
        drawn = np.concatenate([random.choice(group, len(group)) for group in groups])
        found[row] = elo_of(_wins(pairs[drawn], scores[drawn], players), anchor, virtual_draws)
    tail = 50 * (1 - level)
    low, high = np.percentile(found, [tail, 100 - tail], axis=0)
    return Ratings(elo_of(_wins(pairs, scores, players), anchor, virtual_draws), low, high)


def _wins(pairs: np.ndarray, scores: np.ndarray, players: int) -> np.ndarray:
    """(P, P) wins of each over each."""
    wins = np.zeros((players, players))
    np.add.at(wins, (pairs[:, 0], pairs[:, 1]), scores)
    np.add.at(wins, (pairs[:, 1], pairs[:, 0]), 1 - scores)
    return wins
