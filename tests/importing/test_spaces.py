"""Spaces that are inferred from recordings."""

from __future__ import annotations

import numpy as np
import pytest

from generalist.importing.source import Load, Recording
from generalist.importing.spaces import infer_spaces


@pytest.mark.parametrize("outliers, bounded", [(1, False), (100, True)])
def test_few_outliers_leave_the_mu_law_to_all_other_values(outliers: int, bounded: bool) -> None:
    """Between extremes that occur once, bins of equal width would give all others one id."""
    seen = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    seen[:outliers, 0] = 1e4
    parts = [Recording(part, np.zeros(500, np.int64), np.zeros(500)) for part in np.split(seen, 2)]
    loads = [Load(lambda part=part: part) for part in parts]
    space, _ = infer_spaces(enumerate(loads))
    assert np.isfinite(space.high).tolist() == np.isfinite(space.low).tolist() == [bounded, False]
