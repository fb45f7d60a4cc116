"""From returns to scores: raw first, then normalised between random and expert.

Legend: E = episodes of a task, K = tasks, R = resamples of the bootstrap.

A normalised score is (agent - random) / (expert - random). Intervals are the percentile
bootstrap's; an aggregate over tasks resamples the episodes of each task on their own
(stratified), as Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (2021), section 4.1, do, and reports their interquartile mean beside the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist.errors import GeneralistError

if TYPE_CHECKING:
    from generalist.envs.registry import Task

CONFIDENCE = 0.95
RESAMPLES = 2000
NORMAL_QUANTILE = 1.959964  # two-sided 95%

Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], np.ndarray]


def mean_stderr(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of the mean; one value has an unknown error, given as 0."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise GeneralistError("A score needs at least one episode, but there is none.")
    spread = array.std(ddof=1) / np.sqrt(array.size) if array.size > 1 else 0.0
    return float(array.mean()), float(spread)


def with_error(mean: float, stderr: float | None) -> str:
    """`21.3 ± 0.4`: an error to two digits, never in powers of ten."""
    if stderr is None:
        return f"{mean:.4g}"
    return f"{mean:.4g} ± {stderr:.2g}" if stderr < 99.5 else f"{mean:.4g} ± {stderr:.0f}"


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis: (..., n) to (...)."""
    ordered = np.sort(values, axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def stratified_bootstrap(
    scores: Sequence[np.ndarray], statistic: str = "mean", resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, Interval]:
    """Point estimate and 95% percentile interval of an aggregate over K tasks.

    scores: K arrays of (E_k,) normalised episode scores; the counts may differ, and every task
        weighs the same in the mean. The interquartile mean pools all episodes.
    statistic: "mean" or "iqm".
    """
    if not scores:
        raise GeneralistError("An aggregate needs at least one task, but there is none.")
    rng = np.random.default_rng(seed)
    resampled = [
        values[rng.integers(len(values), size=(resamples, len(values)))]
        for values in map(np.asarray, scores)
    ]
    if statistic == "mean":
        point = np.mean([np.mean(values) for values in scores])
        drawn = np.mean([values.mean(axis=1) for values in resampled], axis=0)
    elif statistic == "iqm":
        point = interquartile_mean(np.concatenate([np.asarray(values) for values in scores]))
        drawn = interquartile_mean(np.concatenate(resampled, axis=1))
    else:
        raise ValueError(f"statistic is 'mean' or 'iqm', got {statistic!r}")
    return float(point), percentile_interval(drawn)


def percentile_interval(drawn: np.ndarray) -> Interval:
    """The central 95% of (R,) resampled statistics."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


def bootstrap_interval(values: Sequence[float] | np.ndarray, seed: int = 0) -> Interval:
    """95% interval of the mean of (E,) values."""
    return stratified_bootstrap([np.asarray(values, dtype=np.float64)], seed=seed)[1]


@dataclass(frozen=True)
class Reference:
    """The score of a policy the agent is compared with: random or expert."""

    mean: float
    stderr: float = 0.0
    episodes: int = 0

    @property
    def interval(self) -> Interval:
        """95% interval of the mean, by the normal approximation (only its moments are stored)."""
        half = NORMAL_QUANTILE * self.stderr
        return self.mean - half, self.mean + half


@dataclass
class TaskScore:
    """What an agent scored in one task; `excluded` says why it has no normalised score."""

    task: str
    values: list[float]  # (E,) the task's metric, an episode each
    mean: float
    stderr: float
    interval: Interval
    seeds: list[int]
    prompted: bool = False
    metric: str = "return"
    random: Reference | None = None
    expert: Reference | None = None
    normalized: float | None = None
    normalized_interval: Interval | None = None
    above_random: bool | None = None  # the 95% intervals are disjoint, and ours lies above
    excluded: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def episodes(self) -> int:
        """E."""
        return len(self.values)

    @property
    def normalized_values(self) -> np.ndarray | None:
        """(E,) normalised scores, None for an excluded task."""
        if self.excluded or self.random is None or self.expert is None:
            return None
        return normalize(np.asarray(self.values), self.random.mean, self.expert.mean)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` undoes it."""
        return {**asdict(self), "episodes": self.episodes}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> TaskScore:
        """The score that `to_dict` wrote."""
        known = {k: v for k, v in fields.items() if k != "episodes"}
        for key in ("random", "expert"):
            known[key] = Reference(**known[key]) if known.get(key) else None
        for key in ("interval", "normalized_interval"):
            known[key] = tuple(known[key]) if known.get(key) else None
        return cls(**known)


def normalize(values: np.ndarray, random: float, expert: float) -> np.ndarray:
    """(agent - random) / (expert - random); GeneralistError where the expert is no better."""
    if expert <= random:
        raise GeneralistError(
            f"A score cannot be normalised: the expert's {expert:g} is not above random's "
            f"{random:g}."
        )
    return (np.asarray(values, dtype=np.float64) - random) / (expert - random)


def score_task(
    task: Task, values: Sequence[float], seeds: Sequence[int] = (), prompted: bool = False
) -> TaskScore:
    """Score (E,) values of one task's metric against the registry's random and expert."""
    values = list(values)
    mean, stderr = mean_stderr(values)
    score = TaskScore(
        task=task.name, values=values, mean=mean, stderr=stderr,
        interval=bootstrap_interval(values), seeds=list(seeds), prompted=prompted,
        metric=task.metric, random=_reference(task.random_score),
        expert=_reference(task.expert_score),
    )  # fmt: skip
    score.excluded = _why_excluded(score)
    if score.random is not None and score.episodes > 1:  # one episode has no interval
        score.above_random = is_above(score.interval, score.random.interval)
    normalized = score.normalized_values
    if normalized is not None:
        score.normalized = float(normalized.mean())
        score.normalized_interval = bootstrap_interval(normalized)
    return score


def is_above(interval: Interval, other: Interval) -> bool:
    """True where two intervals are disjoint and the first lies above."""
    return interval[0] > other[1]


def _reference(score: Any) -> Reference | None:
    return None if score is None else Reference(score.mean, score.stderr, score.episodes)


def _why_excluded(score: TaskScore) -> str | None:
    missing = [who for who in ("random", "expert") if getattr(score, who) is None]
    if missing:
        return f"no measured score of {' and '.join(missing)}"
    assert score.random is not None and score.expert is not None
    if score.expert.mean <= score.random.mean:
        return (
            f"the expert ({score.expert.mean:g}) is not better than random ({score.random.mean:g})"
        )
    return None


def aggregate(scores: Sequence[TaskScore]) -> dict[str, Any]:
    """Mean and interquartile mean of the normalised scores over all tasks that have one."""
    kept = [score for score in scores if score.normalized_values is not None]
    excluded = {score.task: score.excluded for score in scores if score.excluded}
    result: dict[str, Any] = {"tasks": [score.task for score in kept], "excluded": excluded}
    if kept:
        arrays = [score.normalized_values for score in kept]
        for statistic in ("mean", "iqm"):
            point, interval = stratified_bootstrap(arrays, statistic)  # type: ignore[arg-type]
            result[statistic] = point
            result[f"{statistic}_interval"] = interval
    return result
