"""Quanta: a known order of learning is found, and sparse parity follows its frequencies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from generalist.analysis.parity import Parity, learn_parity
from generalist.analysis.quanta import Curve, curves_of, fit_quanta
from generalist.cli.main import main
from generalist.errors import GeneralistError


def curve(task: str, frequency: float, step: float) -> Curve:
    """A loss that falls from 1 to 0 around a step, with noise."""
    steps = np.arange(10, 2_000, 10)
    noise = 0.05 * np.random.default_rng(int(step)).normal(size=len(steps))
    return Curve(task, frequency, steps, 1 / (1 + np.exp((steps - step) / 20)) + noise)


def test_tasks_that_are_learned_by_frequency_correlate() -> None:
    frequencies = [0.4, 0.2, 0.15, 0.1, 0.08, 0.05]
    curves = [curve(f"t{n}", each, 40 / each) for n, each in enumerate(frequencies)]
    found = fit_quanta(curves[::-1])
    assert [each.task for each in found.tasks] == [f"t{n}" for n in range(6)]
    assert found.correlation == pytest.approx(1.0) and found.interval[1] == pytest.approx(1.0)
    assert found.exponent == pytest.approx(1.0, abs=0.1)
    for each in found.tasks:
        assert each.learned == pytest.approx(40 / each.frequency, abs=20)
    backwards = [curve(f"t{n}", each, 3_000 * each) for n, each in enumerate(frequencies)]
    assert fit_quanta(backwards).correlation == pytest.approx(-1.0)


def test_a_task_that_never_falls_is_not_learned_and_comes_last() -> None:
    curves = [curve(f"t{n}", 0.1 * (5 - n), 100.0 * (n + 1)) for n in range(4)]
    rare = curve("rare", 0.01, 10.0**6)
    found = fit_quanta([*curves, rare])
    assert found.tasks[-1].learned is None and found.correlation == pytest.approx(1.0)
    assert found.exponent is None  # four that were learned are too few


def test_what_gives_no_order_is_refused(tmp_path: Path, capsys) -> None:
    with pytest.raises(GeneralistError, match="3 tasks are too few"):
        fit_quanta([curve(f"t{n}", 0.1 * n, 100) for n in range(3)])
    with pytest.raises(GeneralistError, match="there is no order"):
        fit_quanta([curve(f"t{n}", 0.2, 100.0 * (n + 1)) for n in range(5)])
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "loss": 1.0, "loss/gym/A-v0": 1.0}\n')
    assert main(["analyze", "quanta", str(log)]) == 2
    assert "does not say how frequent its tasks are" in capsys.readouterr().err
    log.write_text("{broken\n")
    assert main(["analyze", "quanta", str(tmp_path)]) == 1
    assert "damaged in line 1" in capsys.readouterr().err
    assert main(["analyze", "quanta"]) == main(["analyze", "quanta", "no-such-run"]) == 2
    assert main(["analyze", "quanta", str(tmp_path), "--steps", "100"]) == 2
    assert "belong to --parity" in capsys.readouterr().err


def logged(path: Path, steps: list[int], tasks: dict[str, tuple[float, float]]) -> None:
    with path.open("a") as file:
        for step in steps:
            row: dict[str, float] = {"step": step, "loss": 1.0}
            for task, (loss, share) in tasks.items():
                row |= {f"loss/{task}": loss, f"share/{task}": share}
            file.write(json.dumps(row) + "\n")


def test_tasks_that_take_turns_share_all_targets(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for number in range(12):
        logged(log, [10 * number], {f"gym/{number % 3}": (1.0, 1.0)})
    assert [each.frequency for each in curves_of(log)] == pytest.approx([1 / 3] * 3)


def test_of_steps_that_a_resumed_run_has_logged_twice_the_later_count(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    logged(log, [10, 20, 30, 40], {"gym/A": (1.0, 1.0)})
    log.write_text(log.read_text() + '{"step": 40, "score/gym/A": 2.0}\n')
    logged(log, [30, 40, 50], {"gym/A": (0.5, 1.0)})
    (found,) = curves_of(log)
    assert found.steps.tolist() == [10, 20, 30, 40, 50]
    assert found.losses.tolist() == [1.0, 1.0, 0.5, 0.5, 0.5] and found.frequency == 1.0


def test_a_frequent_parity_is_learned(tmp_path: Path) -> None:
    """Of two bits, so that it takes seconds; the same seed writes the same log."""
    parity = Parity(tasks=2, bits=6, chosen=2, batch=128, steps=200, log_every=5)
    first = learn_parity(parity, tmp_path / "one").read_text()
    rows = [json.loads(line) for line in first.splitlines()]
    assert len(rows) == 40 and rows[0]["loss"] > 0.5 > rows[-1]["loss/parity/01"]
    assert rows[-1]["share/parity/01"] + rows[-1]["share/parity/02"] == pytest.approx(1)
    assert learn_parity(parity, tmp_path / "other").read_text() == first
    assert [each.task for each in curves_of(tmp_path / "one")] == ["parity/01", "parity/02"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_sparse_parity_is_learned_in_the_order_of_frequency(tmp_path: Path, seed: int) -> None:
    """Michaud et al. 2023: the check with a known answer."""
    file = tmp_path / "quanta.json"
    command = ["analyze", "quanta", "--parity", "--seed", str(seed), "--out", str(tmp_path)]
    assert main([*command, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    learned = [each["learned"] for each in found["tasks"]]  # the most frequent first
    assert len(learned) - learned.count(None) >= 8
    assert found["correlation"] >= 0.9
