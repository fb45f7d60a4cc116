"""Zipf's law in the states that games visit: the frequency of the state of rank r is r^-s.

Neumann and Gros (2023, "AlphaZero neural scaling and Zipf's law") find s near 1 in games of trained
agents and of random play. Two estimates are given, on stated ranks: the slope in log-log, and the
maximum of the likelihood of the visits at these ranks. Where a state was seen a few times its rank
is chance, so only ranks seen ten times or more count. Both estimates still grow with the number of
games, which is stated beside them: a figure means nothing without it.

States are ranked by the same visits that are counted, so chance lifts some states of the tail and
the exponent comes out too small: by 0.008 in samples of 400,000 visits with a known exponent. A
bootstrap makes the same error once more and so shows it. The estimates are corrected by it, and the
intervals are basic bootstrap intervals (Davison and Hinkley 1997, section 5.2): on those samples
they hold the truth. Games are resampled whole, because the states of one depend on each other. An
interval says how much other games of the same players would change the figure, not more games.

Legend: V = visits, S = distinct states, G = games.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generalist.envs.board_view import BoardView
from generalist.errors import GeneralistError, UsageError

SEEN = 10
"""Fewest visits of a state whose rank counts."""
FEWEST_RANKS = 30
_STEPS = 60  # halvings of an interval of exponents: far below its interval
_GRID = 200  # ranks at equal distances in the logarithm, for the slope


@dataclass(frozen=True)
class Visits:
    """The states that games visited.

    Attributes:
        state: (V,) int64, number of the state.
        game: (V,) int64, number of the game.
    """

    state: np.ndarray
    game: np.ndarray

    @property
    def games(self) -> int:
        """G."""
        return int(self.game.max()) + 1 if len(self.game) else 0


@dataclass(frozen=True)
class ZipfFit:
    """What was found; intervals hold 95% of the resamples.

    Attributes:
        games: G.
        visits: V.
        states: S.
        ranks: first and last rank of the fit.
        slope: exponent s by the slope in log-log.
        slope_interval: of it.
        r_squared: of the line; plies of an opening make steps, so it is no test of the law.
        likelihood: exponent s of the largest likelihood.
        likelihood_interval: of it.
    """

    games: int
    visits: int
    states: int
    ranks: tuple[int, int]
    slope: float
    slope_interval: tuple[float, float]
    r_squared: float
    likelihood: float
    likelihood_interval: tuple[float, float]


def recorded_games(path: Path) -> dict[str, list[list[int]]]:
    """Board -> OpenSpiel's actions of each game, of the record of a run of self-play.

    Args:
        path: `games.jsonl`, or the folder of the run.

    Raises:
        UsageError: there is no such file.
        GeneralistError: it is damaged.
    """
    path = path / "games.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise UsageError(f"There is no record of games {path}; `generalist selfplay` writes one.")
    found: dict[str, list[list[int]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            game = json.loads(line)
            found.setdefault(game["board"], []).append([int(a) for a in game["actions"]])
        except (ValueError, KeyError, TypeError) as error:
            raise GeneralistError(f"{path} is damaged in line {number}: {error!r}.") from error
    return found


def random_games(view: BoardView, count: int, seed: int) -> Iterator[list[int]]:
    """OpenSpiel's actions of games of random legal moves."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        state, drawn = view.start(), random.random(view.game.longest)
        actions: list[int] = []
        while not state.is_terminal():
            legal = state.legal_actions()
            actions.append(legal[int(drawn[len(actions)] * len(legal))])
            state.apply_action(actions[-1])
        yield actions


def visits_of(view: BoardView, games: Iterable[Sequence[int]]) -> Visits:
    """The states before each move of these games: pieces, and who is to move."""
    numbers: dict[bytes, int] = {}
    states: list[int] = []
    owners: list[int] = []
    for number, actions in enumerate(games):
        state = view.start()
        for action in actions:
            key = bytes([view.mover(state)]) + view.planes(state).astype(np.uint8).tobytes()
            states.append(numbers.setdefault(key, len(numbers)))
            owners.append(number)
            state.apply_action(action)
    return Visits(np.array(states, np.int64), np.array(owners, np.int64))


def fit_zipf(
    visits: Visits, *, first_rank: int = 10, resamples: int = 200, seed: int = 0
) -> ZipfFit:
    """Fit the exponent from `first_rank` to the last rank that was seen ten times.

    Args:
        visits: of the games.
        first_rank: the first ranks are the opening's few states, which follow no law.
        resamples: of the bootstrap over games.
        seed: of the bootstrap.

    Raises:
        GeneralistError: there are too few visits for a fit.
    """
    counts = np.bincount(visits.state) if len(visits.state) else np.zeros(0, np.int64)
    last_rank = int((counts >= SEEN).sum())
    if last_rank < first_rank + FEWEST_RANKS:
        raise GeneralistError(
            f"{len(visits.state):,} visits are too few for a fit: {last_rank} states were seen "
            f"{SEEN} times, and a fit from rank {first_rank} on takes "
            f"{first_rank + FEWEST_RANKS}. Play more games."
        )
    random = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        times = np.bincount(
            random.integers(visits.games, size=visits.games), minlength=visits.games
        )
        drawn = np.bincount(visits.state, weights=times[visits.game])
        found.append(_exponents(drawn, first_rank, last_rank))
    slopes, likelihoods = np.array([each[:2] for each in found]).T
    slope, likelihood, r_squared = _exponents(counts, first_rank, last_rank)
    return ZipfFit(
        games=visits.games,
        visits=len(visits.state),
        states=int((counts > 0).sum()),
        ranks=(first_rank, last_rank),
        slope=2 * slope - float(slopes.mean()),
        slope_interval=_interval(slope, slopes),
        r_squared=r_squared,
        likelihood=2 * likelihood - float(likelihoods.mean()),
        likelihood_interval=_interval(likelihood, likelihoods),
    )


def _interval(found: float, resampled: np.ndarray) -> tuple[float, float]:
    """The basic bootstrap interval: the resamples err from the estimate as it does from truth."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(2 * found - high), float(2 * found - low)


def _exponents(counts: np.ndarray, first: int, last: int) -> tuple[float, float, float]:
    """Slope, exponent by likelihood, and R squared of the slope, on ranks `first` to `last`."""
    frequency = np.sort(counts)[::-1].astype(float)
    grid = np.unique(np.geomspace(first, last, _GRID).round().astype(int))
    x, y = np.log(grid), np.log(np.maximum(frequency[grid - 1], 1))
    slope, offset = np.polyfit(x, y, 1)
    left = y - (slope * x + offset)
    r_squared = 1 - float((left**2).sum() / ((y - y.mean()) ** 2).sum())
    return -float(slope), _likeliest(frequency[first - 1 : last], first), r_squared


def _likeliest(frequency: np.ndarray, first: int) -> float:
    """The exponent at which the mean logarithm of a rank is the one observed.

    That is where the likelihood of the power law on these ranks alone is largest; the mean falls
    with the exponent, so halving finds it.
    """
    logs = np.log(np.arange(first, first + len(frequency)))
    observed = float(frequency @ logs / frequency.sum())
    low, high = 0.0, 10.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        weights = np.exp(-middle * (logs - logs[0]))
        if weights @ logs / weights.sum() > observed:
            low = middle
        else:
            high = middle
    return (low + high) / 2
