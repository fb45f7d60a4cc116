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


def fit_quantiles(layout: Layout, observations: Sequence[Tree]) -> Layout:
    """The layout with bins fitted to these episodes, in place of all bins of its observations.

    Actions keep theirs, for they are chosen between bounds.
    Raises UsageError where nothing that is observed is a real number.
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
    """(N,) finite values to increasing knots: quantiles, drawn a little towards an even spacing."""
    low, high = values.min(), values.max()
    missing = max(LEAST_WIDTH * abs(low + high) / 2, 1e-6) - (high - low)
    if missing > 0:
        low, high = low - missing / 2, high + missing / 2
    levels = np.linspace(0.0, 1.0, PARTS + 1)
    quantiles = np.quantile(values, levels)
    quantiles[[0, -1]] = low, high
    inner = (1 - UNIFORM_SHARE) * quantiles + UNIFORM_SHARE * (low + levels * (high - low))
    margin = MARGIN * (high - low)
    return tuple(float(f"{x:.8g}") for x in (low - margin, *inner, high + margin))
