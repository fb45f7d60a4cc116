"""Fitting the bins of `quantile.py` to a few episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from generalist.episode import Tree, tree_get
from generalist.errors import UsageError
from generalist.tokenization.codec import flat
from generalist.tokenization.continuous import ContinuousCodec, finite
from generalist.tokenization.layout import Layout
from generalist.tokenization.quantile import QuantileCodec

PARTS = 64
"""Parts of equal frequency that an element's values are cut into."""
UNIFORM_SHARE = 0.05
"""Share of an even spacing in the knots: a value that occurs all the time takes not all bins."""
MARGIN = 0.5
"""Beyond what occurs lie two parts more, each of this share of its width, for what is new."""
LEAST_WIDTH = 0.01
"""Least width of what occurs, as a share of its distance from zero: float32 tells bins apart."""
COMMON, WIDTHS = 0.98, 8.0
"""The even spacing ends so many widths of what this share of the values has from these values."""


def fit_quantiles(layout: Layout, observations: Sequence[Tree]) -> Layout:
    """The layout with bins of its observations that are fitted to episodes.

    Actions keep their bins, for they are chosen between bounds.

    Args:
        layout: The layout of the episodes.
        observations: Batched observations of each episode, (T, ...).

    Raises:
        UsageError: No observation is a real number.
    """
    parts = []
    for part in layout.parts:
        codec = part.codec
        if part.role == "observation" and isinstance(codec, ContinuousCodec) and codec.tokens:
            seen = [flat(tree_get(tree, part.path), codec.shape) for tree in observations]
            knots = tuple(map(fit_knots, finite(np.concatenate(seen)).T))
            fitted = QuantileCodec(codec.shape, codec.dtype, knots, codec.bins)
            part = replace(part, codec=fitted)
        parts.append(part)
    if tuple(parts) == layout.parts:
        raise UsageError("No observation is a real number, so there are no bins to be fitted.")
    return Layout(tuple(parts))


def fit_knots(values: np.ndarray) -> tuple[float, ...]:
    """Knots of an element: quantiles, drawn a little towards an even spacing.

    Args:
        values: (N,) finite numbers, N >= 1.

    Returns:
        `PARTS` + 3 increasing numbers, the first and the last beyond what occurs.
    """
    low, high = values.min(), values.max()
    missing = _least_width(low, high) - (high - low)
    if missing > 0:
        low, high = low - missing / 2, high + missing / 2
    levels = np.linspace(0.0, 1.0, PARTS + 1)
    inner = (1 - UNIFORM_SHARE) * np.quantile(values, levels)
    inner += UNIFORM_SHARE * _evenly(levels, values, low, high)
    inner[[0, -1]] = low, high
    margin = MARGIN * (high - low)
    return tuple(float(f"{x:.8g}") for x in (low - margin, *inner, high + margin))


def _least_width(low: float, high: float) -> float:
    """The width that values between two bounds are given at least."""
    return max(LEAST_WIDTH * abs(low + high) / 2, 1e-6)


def _evenly(levels: np.ndarray, values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Evenly spaced numbers between `low` and `high`.

    Or between nearer bounds, not too far from common values: a single far outlier does not take the
    bins of all others.
    """
    first, last = np.quantile(values, [(1 - COMMON) / 2, (1 + COMMON) / 2])
    beyond = WIDTHS * max(last - first, _least_width(first, last))
    low, high = max(low, first - beyond), min(high, last + beyond)
    return low + levels * (high - low)
