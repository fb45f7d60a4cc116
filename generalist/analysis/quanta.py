"""When tasks are learned against how frequent they are.

The quantization model (Michaud et al. 2023, "The quantization model of neural scaling") says that
what a network learns comes in quanta, and that it learns them in the order of their frequency. Here
the quanta are tasks, and the log of a run says of each how frequent it was and how its loss fell.

A task is learned at the first row from which its loss stays below the middle between its first and
its last value. A task whose loss has hardly fallen by then is not learned yet. The rank correlation
is Spearman's; tasks that are not learned share the last rank.

A correlation is no cause: tasks also differ in how hard they are. Multitask sparse parity, where
they do not, is the check (`parity.py`).

Legend: N = tasks, R = rows of the log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from generalist.errors import GeneralistError, UsageError
from generalist.training.log import LOG_FILE

FEWEST_TASKS = 5
LEAST_FALL = 0.3
"""A task is not learned whose loss has fallen by less than this share of its first value."""
_SMOOTHED = 5  # rows of which the median is taken, so that one lucky row says nothing
_RESAMPLES = 2_000


@dataclass(frozen=True)
class Curve:
    """How the loss of a task fell.

    Attributes:
        task: its name.
        frequency: its share of all targets.
        steps: (R,) optimizer steps of the rows that have it.
        losses: (R,) its mean loss in these rows.
    """

    task: str
    frequency: float
    steps: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True)
class Quantum:
    """A task: how frequent it was, and when it was learned.

    Attributes:
        task: its name.
        frequency: its share of all targets.
        learned: optimizer step at which it was learned; None where it is not.
        first: its loss at first.
        last: its loss in the end.
    """

    task: str
    frequency: float
    learned: int | None
    first: float
    last: float


@dataclass(frozen=True)
class Quanta:
    """What was found; the interval holds 95% of the resamples of tasks.

    Attributes:
        tasks: by frequency, the most frequent first.
        correlation: Spearman's, between being frequent and being learned early.
        interval: of it.
        exponent: b where the step at which tasks are learned goes as frequency^-b; None where fewer
            than five are learned.
    """

    tasks: list[Quantum]
    correlation: float
    interval: tuple[float, float]
    exponent: float | None


def curves_of(path: Path) -> list[Curve]:
    """The tasks of a run of training.

    Args:
        path: `log.jsonl`, or the folder of the run.

    Raises:
        UsageError: there is no such file, or it does not say how frequent its tasks are.
        GeneralistError: it is damaged.
    """
    path = path / LOG_FILE if path.is_dir() else path
    if not path.is_file():
        raise UsageError(f"There is no log {path}; `generalist train` writes one.")
    rows: dict[int, dict[str, tuple[float, float]]] = {}  # step -> task -> loss and share
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            step, tasks = _row(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GeneralistError(f"{path} is damaged in line {number}: {error!r}.") from error
        if tasks:
            if rows and step <= next(reversed(rows)):
                # A run that was killed and resumed has logged some steps twice: the later counts.
                rows = {before: kept for before, kept in rows.items() if before < step}
            rows[step] = tasks
    found: dict[str, list[tuple[int, float, float]]] = {}
    for step, tasks in rows.items():
        for task, (loss, share) in tasks.items():
            found.setdefault(task, []).append((step, loss, share))
    if not found:
        raise UsageError(
            f"{path} does not say how frequent its tasks are (share/TASK beside loss/TASK). Train "
            "with this version, on several tasks."
        )
    curves = []
    for task, places in found.items():
        steps, losses, shares = (np.array(column) for column in zip(*places, strict=True))
        curves.append(Curve(task, float(shares.sum() / len(rows)), steps, losses))
    return curves


def _row(row: dict[str, float]) -> tuple[int, dict[str, tuple[float, float]]]:
    """The step of a row, and by task its loss and its share of the targets."""
    found = {}
    for key, loss in row.items():
        kind, _, task = key.partition("/")
        if kind == "loss" and f"share/{task}" in row:
            found[task] = float(loss), float(row[f"share/{task}"])
    return int(row["step"]), found


def fit_quanta(curves: Sequence[Curve], *, seed: int = 0) -> Quanta:
    """When each task was learned, and the rank correlation with its frequency.

    Args:
        curves: of N tasks.
        seed: of the bootstrap over tasks.

    Raises:
        GeneralistError: there are too few tasks, or all are as frequent, or none was learned.
    """
    if len(curves) < FEWEST_TASKS:
        raise GeneralistError(
            f"{len(curves)} tasks are too few for an order; give {FEWEST_TASKS} or more."
        )
    tasks = sorted((_quantum(each) for each in curves), key=lambda each: -each.frequency)
    frequency = np.array([each.frequency for each in tasks])
    learned = np.array([np.inf if t.learned is None else t.learned for t in tasks])
    if len(np.unique(frequency)) == 1 or len(np.unique(learned)) == 1:
        raise GeneralistError(
            "All tasks are as frequent, or all were learned at the same time or not at all, so "
            "there is no order. Train for longer, or with other weights (data.weights)."
        )
    random = np.random.default_rng(seed)
    drawn = [
        _correlation(frequency[rows], learned[rows])
        for rows in random.integers(len(tasks), size=(_RESAMPLES, len(tasks)))
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Quanta(
        tasks=tasks,
        correlation=_correlation(frequency, learned),
        interval=(float(low), float(high)),
        exponent=_exponent(frequency, learned),
    )


def _quantum(curve: Curve) -> Quantum:
    steps, losses = _smoothed(curve)
    first, last = float(losses[0]), float(losses[-1])
    step = None
    if first - last >= LEAST_FALL * abs(first):
        above = np.flatnonzero(losses > (first + last) / 2)
        step = int(steps[above[-1] + 1])  # the last row is below
    return Quantum(curve.task, curve.frequency, step, first, last)


def _smoothed(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses, each the median of some neighbouring rows; fewer than there were."""
    rows = min(_SMOOTHED, len(curve.losses))
    windows = np.lib.stride_tricks.sliding_window_view(curve.losses, rows)
    steps = curve.steps[rows // 2 :][: len(windows)]
    return steps, np.median(windows, axis=1)


def _correlation(frequency: np.ndarray, learned: np.ndarray) -> float:
    """Spearman's rank correlation of frequency and earliness; nan where one is constant."""
    ranks = stats.rankdata(frequency), stats.rankdata(-learned)
    if np.ptp(ranks[0]) == 0 or np.ptp(ranks[1]) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _exponent(frequency: np.ndarray, learned: np.ndarray) -> float | None:
    known = np.isfinite(learned)
    if known.sum() < FEWEST_TASKS:
        return None
    return -float(np.polyfit(np.log(frequency[known]), np.log(learned[known]), 1)[0])
