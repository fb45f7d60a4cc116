"""Means over episodes, and intervals that hold the true mean 95 times in 100.

Success has the Beta interval of Clopper and Pearson (1934), returns have Student's t. Neither
needs many episodes. The percentile bootstrap does: its interval covers 83% with 5 normal values.
With 20 episodes of a policy that succeeds 98 times in 100 it covers 34%, because 20 successes
show no spread.

SciPy is imported late: acting does without it, and the command line imports this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from generalist.errors import GeneralistError

CONFIDENCE = 0.95
TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
RESAMPLES = 4_000

Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], np.ndarray]


def mean_stderr(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean of (E,) values and its standard error, which one value alone does not show.

    Raises:
        GeneralistError: there is no value.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise GeneralistError("A score needs at least one episode, but there is none.")
    spread = float(array.std(ddof=1) / math.sqrt(array.size)) if array.size > 1 else None
    return float(array.mean()), spread


def with_error(mean: float, stderr: float | None) -> str:
    """`21.3 ± 0.4`: an error to two digits, never in powers of ten; unknown, it is left out."""
    if stderr is None:
        return f"{mean:.4g}"
    return f"{mean:.4g} ± {stderr:.2g}" if stderr < 99.5 else f"{mean:.4g} ± {stderr:.0f}"


@dataclass(frozen=True)
class Estimate:
    """What episodes say of a policy's true mean.

    Attributes:
        mean: of the episodes.
        stderr: its standard error; None for a single episode.
        episodes: how many there were.
        success: whether each episode counts 1.0 or 0.0.
    """

    mean: float
    stderr: float | None
    episodes: int
    success: bool = False

    @classmethod
    def of(cls, values: Sequence[float], *, success: bool = False) -> Estimate:
        """The estimate from (E,) values, an episode each."""
        return cls(*mean_stderr(values), len(values), success)

    @property
    def successes(self) -> int:
        """How many episodes succeeded."""
        return round(self.mean * self.episodes)

    @property
    def interval(self) -> Interval | None:
        """95% interval of the true mean; None where a single return has no known error."""
        if self.success:
            return success_interval(self.successes, self.episodes)
        if self.stderr is None:
            return None
        from scipy import stats

        half = float(stats.t.ppf(TAILS[1], self.episodes - 1)) * self.stderr
        return self.mean - half, self.mean + half

    @property
    def error(self) -> float | None:
        """The standard error to combine with others: of success it is never 0.

        The share of successes is taken as (successes + 1/2) / (episodes + 1), the mean of
        Jeffreys' posterior. So 20 of 20 have an error of 0.034.
        """
        if not self.success:
            return self.stderr
        share = (self.successes + 0.5) / (self.episodes + 1)
        return math.sqrt(share * (1 - share) / self.episodes)

    def draws(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count,) true means that these episodes make likely.

        Draws come from Jeffreys' posterior for success, else from Student's t. They are the mean
        itself where the error is unknown.
        """
        if self.success:
            failures = self.episodes - self.successes
            return rng.beta(self.successes + 0.5, failures + 0.5, count)
        if self.stderr is None:
            return np.full(count, self.mean)
        return self.mean + self.stderr * rng.standard_t(self.episodes - 1, count)


def success_interval(successes: int, episodes: int) -> Interval:
    """95% interval of a probability (Clopper and Pearson 1934): it never covers less."""
    from scipy import stats

    low = stats.beta.ppf(TAILS[0], successes, episodes - successes + 1) if successes else 0.0
    high = 1.0
    if successes < episodes:
        high = stats.beta.ppf(TAILS[1], successes + 1, episodes - successes)
    return float(low), float(high)


def percentile_interval(drawn: np.ndarray) -> Interval:
    """The central 95% of (R,) draws."""
    low, high = np.quantile(drawn, TAILS)
    return float(low), float(high)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis: (..., n) to (...)."""
    from scipy import stats

    return stats.trim_mean(values, 0.25, axis=-1)


def optimality_gap(values: np.ndarray) -> np.ndarray:
    """How far (..., n) normalised scores stay below 1, the expert's, on average: (...).

    Agarwal et al. 2021, section 4.3, with 1 as the threshold.
    """
    return np.maximum(0.0, 1.0 - np.asarray(values)).mean(axis=-1)


AGGREGATES: dict[str, Statistic] = {
    "mean": lambda values: np.mean(values, axis=-1),
    "median": lambda values: np.median(values, axis=-1),
    "iqm": interquartile_mean,
    "optimality_gap": optimality_gap,
}
