"""Scaling laws: how a figure falls or grows with parameters, data or compute.

A power law y = a x^b is a line in log-log. A saturating one, y = c + a x^b, has a floor (or a
ceiling) c that more x does not pass. Which describes the points better is said by AICc, which
charges for the third parameter (Burnham and Anderson 2002, section 2.4); a difference below 2 says
nothing. Errors are taken as relative, so both are fitted in the logarithm of y.

Legend: N = points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from generalist.errors import GeneralistError

FEWEST_POINTS = 5
"""AICc of three parameters and a variance has no meaning with fewer than six points; a power law
alone needs five to say anything of its interval."""


@dataclass(frozen=True)
class PowerLaw:
    """y = floor + factor x^exponent.

    Attributes:
        exponent: negative where y falls.
        interval: 95% of the exponent; Student's t in log-log. None for the saturating law.
        factor: a.
        floor: c; 0 for the plain law.
        aicc: Akaike's criterion with the correction for few points; None where too few.
    """

    exponent: float
    interval: tuple[float, float] | None
    factor: float
    floor: float
    aicc: float | None


@dataclass(frozen=True)
class Scaling:
    """Both laws of the same points.

    Attributes:
        points: N.
        decades: of x.
        power: the plain law.
        saturating: the one with a floor; None where there are too few points.
    """

    points: int
    decades: float
    power: PowerLaw
    saturating: PowerLaw | None

    @property
    def advantage(self) -> float | None:
        """AICc of the plain law less that of the saturating one; above 2 the latter is better."""
        other = None if self.saturating is None else self.saturating.aicc
        return None if other is None or self.power.aicc is None else self.power.aicc - other


def fit_scaling(x: np.ndarray, y: np.ndarray) -> Scaling:
    """Fit both laws to N points.

    Args:
        x: (N,) positive, such as numbers of parameters.
        y: (N,) positive, such as losses.

    Raises:
        GeneralistError: there are too few points, or one is not positive.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < FEWEST_POINTS or len(np.unique(x)) < 3:
        raise GeneralistError(
            f"{len(x)} points are too few for a law; give {FEWEST_POINTS} or more, of three values "
            "of x at least."
        )
    if not ((x > 0) & (y > 0) & np.isfinite(x) & np.isfinite(y)).all():
        raise GeneralistError("A law in log-log needs positive finite values of both columns.")
    line = stats.linregress(np.log(x), np.log(y))
    reach = stats.t.ppf(0.975, len(x) - 2) * line.stderr
    left = np.log(y) - line.intercept - line.slope * np.log(x)
    power = PowerLaw(
        exponent=float(line.slope),
        interval=(float(line.slope - reach), float(line.slope + reach)),
        factor=math.exp(line.intercept),
        floor=0.0,
        aicc=_aicc(left, parameters=2),
    )
    saturating = _saturating(x, y, power) if len(x) > FEWEST_POINTS else None
    return Scaling(len(x), float(np.log10(x.max() / x.min())), power, saturating)


def _saturating(x: np.ndarray, y: np.ndarray, power: PowerLaw) -> PowerLaw:
    """The best of several starts: floors below all points, or ceilings above a growing law's.

    Between the two lies a law of exponent 0, which a fit does not pass.
    """
    middle = math.exp(np.log(x).mean())
    floors = [share * y.min() for share in (0.0, 0.3, 0.6, 0.9)]
    ceilings = [share * y.max() for share in (1.05, 1.5, 3.0)] if power.exponent > 0 else []

    def left(values: np.ndarray) -> np.ndarray:
        floor, factor, exponent = values
        curve = floor + factor * (x / middle) ** exponent
        return np.log(np.maximum(curve, 1e-300)) - np.log(y)

    best = None
    for floor in (*floors, *ceilings):
        factor = float(np.median(y)) - floor
        begin = [floor, factor or 1e-12, math.copysign(power.exponent, factor * power.exponent)]
        found = optimize.least_squares(left, begin, x_scale=np.maximum(np.abs(begin), 1e-3))
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    floor, factor, exponent = (float(value) for value in best.x)
    return PowerLaw(
        exponent, None, factor * middle**-exponent, floor, _aicc(best.fun, parameters=3)
    )


def _aicc(left: np.ndarray, *, parameters: int) -> float | None:
    """AICc of normal errors in the logarithm; their variance is one parameter more."""
    count, free = len(left), parameters + 1
    if count - free - 1 <= 0:
        return None
    variance = max(float((left**2).mean()), 1e-300)
    return count * math.log(variance) + 2 * free + 2 * free * (free + 1) / (count - free - 1)
