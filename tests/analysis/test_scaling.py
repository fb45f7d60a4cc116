"""Scaling laws: known exponents, and which law describes the points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from generalist.analysis.scaling import fit_scaling
from generalist.cli.main import main
from generalist.errors import GeneralistError

X = np.geomspace(1e5, 1e7, 9)


def noisy(y: np.ndarray, seed: int = 0) -> np.ndarray:
    return y * np.exp(np.random.default_rng(seed).normal(0, 0.01, len(y)))


def test_a_power_law_is_found_within_its_interval_and_not_called_saturating() -> None:
    held = 0
    for seed in range(20):
        found = fit_scaling(X, noisy(3 * X**-0.3, seed))
        low, high = found.power.interval
        held += low < -0.3 < high
        assert found.advantage is not None and found.advantage < 6
    assert held >= 16 and found.decades == pytest.approx(2)


def test_a_floor_is_found() -> None:
    found = fit_scaling(X, noisy(0.5 + 40 * X**-0.4))
    assert found.advantage > 2 and found.saturating is not None
    assert found.saturating.floor == pytest.approx(0.5, abs=0.1)
    assert found.saturating.exponent == pytest.approx(-0.4, abs=0.1)


def test_a_ceiling_is_found_and_not_seen_where_there_is_none() -> None:
    """Elo and returns grow; a fit from below the points alone ends at an exponent of 0."""
    found = fit_scaling(X, noisy(1_500 - 90_000 * X**-0.4)).saturating
    assert found is not None and found.exponent == pytest.approx(-0.4, abs=0.1)
    assert found.floor == pytest.approx(1_500, rel=0.03) and found.factor < 0
    advantages = [fit_scaling(X, noisy(3 * X**0.3, seed)).advantage for seed in range(20)]
    assert np.mean(np.array(advantages) > 2) < 0.3 and max(advantages) < 6


def test_too_few_or_wrong_points_are_refused(tmp_path: Path, capsys) -> None:
    with pytest.raises(GeneralistError, match="too few for a law"):
        fit_scaling(X[:4], X[:4])
    with pytest.raises(GeneralistError, match="positive"):
        fit_scaling(X, X - X.mean())
    table = tmp_path / "runs.csv"
    lines = [f"{x},{2 * x**-0.5}" for x in X]
    table.write_text("parameters,loss\n" + "\n".join(lines) + "\n")
    assert main(["analyze", "scaling", str(table), "--x", "parameters", "--y", "loss"]) == 0
    assert "parameters^-0.500" in capsys.readouterr().out
    assert main(["analyze", "scaling", str(table), "--x", "size", "--y", "loss"]) == 2
    assert "no column 'size'" in capsys.readouterr().err
