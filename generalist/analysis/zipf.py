"""Zipf's law in the states that games visit: the frequency of the state of rank r is r^-s.

Neumann and Gros (2024, "AlphaZero neural scaling and Zipf's law") find s near 1 in games of trained
agents, and 0.97 in two million random games of Connect Four. Two estimates are given, on stated
ranks: the slope in log-log, and the maximum of the likelihood of the visits at these ranks. Where a
state was seen a few times its rank is chance, so only ranks seen ten times or more count. Both
estimates still grow with the number of games, which is stated beside them: a figure means nothing
without it. A third is fitted as the published ones were, to be compared with them.

States are ranked by the same visits that are counted, so chance lifts some states of the tail and
the exponent comes out too small: by 0.008 in samples of 400,000 visits with a known exponent. A
bootstrap makes the same error once more and so shows it. The estimates are corrected by it, and the
intervals are basic bootstrap intervals (Davison and Hinkley 1997, section 5.2): on those samples
they hold the truth. Games are resampled whole, because the states of one depend on each other. An
interval says how much other games of the same players would change the figure, not more games.

Legend: V = visits, S = distinct states, G = games.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from generalist.analysis.visits import Visits
from generalist.errors import GeneralistError

SEEN = 10
"""Fewest visits of a state whose rank counts."""
FEWEST_RANKS = 30
PUBLISHED_FIRST = 100
_STEPS = 60  # halvings of an interval of exponents: far below its interval
_GRID = 200  # ranks at equal distances in the logarithm, for the slope


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
        published: exponent s as the published figures were fitted; None where there are too few
            states. Compare only this one with them.
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
    published: float | None


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
    found = [
        _exponents(drawn, first_rank, last_rank)
        for drawn in _resampled(visits, counts, resamples, np.random.default_rng(seed))
    ]
    slopes, likelihoods = np.array([each[:2] for each in found]).T
    frequency = np.sort(counts)[::-1].astype(np.float64)
    slope, likelihood, r_squared = _exponents(frequency[:last_rank], first_rank, last_rank)
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
        published=_as_published(frequency[: int((counts > 0).sum())]),
    )


def _resampled(
    visits: Visits, counts: np.ndarray, resamples: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """The largest counts, descending, where games are drawn anew, each as often as chance has it.

    States that were seen once are left out: to be among these ranks in a resample, their one game
    would have to be drawn some ten times, which happens to one in ten million.
    """
    several = counts > 1
    numbers = (np.cumsum(several) - 1).astype(np.int32)
    kept = several[visits.state]
    state, game = numbers[visits.state[kept]], visits.game[kept]
    order = np.argsort(state, kind="stable")
    game = game[order]  # the games of each state side by side, so that sums run through memory
    starts = np.concatenate([[0], np.cumsum(counts[several])[:-1]])
    largest = int((counts >= SEEN).sum())
    for _ in range(resamples):
        drawn = random.integers(visits.games, size=visits.games)
        times = np.bincount(drawn, minlength=visits.games).astype(np.float32)
        again = np.add.reduceat(times[game], starts)
        yield np.sort(np.partition(again, len(again) - largest)[-largest:])[::-1].astype(float)


def _interval(found: float, resampled: np.ndarray) -> tuple[float, float]:
    """The basic bootstrap interval: the resamples err from the estimate as it does from truth."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(2 * found - high), float(2 * found - low)


def _exponents(frequency: np.ndarray, first: int, last: int) -> tuple[float, float, float]:
    """Slope, exponent by likelihood, and R squared of the slope, on ranks `first` to `last`.

    Args:
        frequency: (last,) counts, descending.
        first: first rank, from 1.
        last: last rank.
    """
    grid = np.unique(np.geomspace(first, last, _GRID).round().astype(int))
    x, y = np.log(grid), np.log(np.maximum(frequency[grid - 1], 1))
    slope, offset = np.polyfit(x, y, 1)
    left = y - (slope * x + offset)
    r_squared = 1 - float((left**2).sum() / ((y - y.mean()) ** 2).sum())
    return -float(slope), _likeliest(frequency[first - 1 : last], first), r_squared


def _as_published(frequency: np.ndarray) -> float | None:
    """The slope as Neumann and Gros fit it; None where there are too few ranks.

    A line in log-log through ranks 100 to a hundredth of all states, with weights that fall as
    1/rank. So the first few hundred ranks decide.
    """
    first, last = PUBLISHED_FIRST, len(frequency) // 100
    if last < first + FEWEST_RANKS:
        return None
    ranks = np.arange(first, last) + 1.0
    slope, _ = np.polyfit(np.log(ranks), np.log(frequency[first:last]), 1, w=1 / ranks)
    return -float(slope)


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
