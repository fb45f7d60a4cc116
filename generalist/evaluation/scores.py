"""From returns to scores: raw first, then normalised between random and expert.

Legend: E = episodes of a task, K = scores, one a task (and a run, where there are several),
R = draws.

A normalised score is (agent - random) / (expert - random). All three are means over episodes, and
the interval of the score takes the errors of all three into account.

An aggregate is taken over K scores, each a mean over its episodes, as Agarwal et al. do ("Deep
Reinforcement Learning at the Edge of the Statistical Precipice", 2021, section 4). Its interval is
a parametric bootstrap, stratified by task: each score is drawn anew from its own distribution. The
package `rliable` resamples the runs of a matrix (runs, tasks) instead. One checkpoint is one run,
which has no spread to resample. Its tasks have unequal numbers of episodes, and the errors of the
references have no place in that matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist.envs import get_task
from generalist.errors import GeneralistError
from generalist.evaluation.intervals import (
    AGGREGATES,
    RESAMPLES,
    Estimate,
    Interval,
    mean_stderr,
    percentile_interval,
    with_error,
)
from generalist.evaluation.reading import Reading

if TYPE_CHECKING:
    from generalist.envs.registry import Score, Task

OWN = "own"


@dataclass(frozen=True)
class Reference:
    """The score of a policy the agent is compared with: random play or an expert.

    Attributes:
        mean: of the task's metric.
        stderr: of the mean; None for a single episode.
        episodes: how many it was measured over.
        name: whose score it is.
        max_steps: where its episodes were cut; None for whole ones.
        foresees: whether it knew chances that were still to come.
    """

    mean: float
    stderr: float | None = None
    episodes: int = 1
    name: str = ""
    max_steps: int | None = None
    foresees: bool = False

    @classmethod
    def of(cls, score: Score | None, name: str) -> Reference | None:
        """The reference that the registry's score makes; None where there is none."""
        if score is None:
            return None
        return cls(
            score.mean, score.stderr, score.episodes, score.expert or name, score.max_steps,
            score.foresees,
        )  # fmt: skip


@dataclass
class TaskScore:
    """What an agent scored in one task.

    Attributes:
        task: its name.
        values: (E,) the task's metric, an episode each.
        mean: of the values.
        stderr: of the mean; None for a single episode.
        interval: 95% of the mean; None where the error is unknown.
        seeds: of the environments, an episode each.
        prompted: whether episodes began with a demonstration.
        instruction: whose instruction the agent was given: `own`, `none` or `shuffled`.
        reading: mean return, and how often the first thing reached was the one named.
        metric: `return` or `success`.
        random: the score of random play.
        expert: the score of the expert that normalises.
        normalized: None where `excluded` says why.
        normalized_stderr: by the delta method, from the errors of agent, random and expert.
        normalized_interval: 95% of the normalised score.
        above_random: whether the intervals are disjoint and the agent's lies above.
        excluded: why there is no normalised score.
        teacher: the expert that made the training data, where that is known.
        teacher_score: its score, where it was measured.
        normalized_by_teacher: the score with the teacher as 1, where that is another expert.
    """

    task: str
    values: list[float]
    mean: float
    stderr: float | None
    interval: Interval | None
    seeds: list[int]
    prompted: bool = False
    instruction: str = OWN
    reading: Reading | None = None
    metric: str = "return"
    random: Reference | None = None
    expert: Reference | None = None
    normalized: float | None = None
    normalized_stderr: float | None = None
    normalized_interval: Interval | None = None
    above_random: bool | None = None
    excluded: str | None = None
    teacher: str | None = None
    teacher_score: Reference | None = None
    normalized_by_teacher: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def episodes(self) -> int:
        """E."""
        return len(self.values)

    @property
    def label(self) -> str:
        """The task's name, with the instruction where it is not the task's own."""
        return label(self.task, self.instruction)

    def estimate(self, who: str = "") -> Estimate:
        """What is known of the true mean of the agent, or of `random` or `expert`."""
        found: Any = getattr(self, who) if who else self
        return Estimate(found.mean, found.stderr, found.episodes, self.metric == "success")

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` undoes it."""
        return {**asdict(self), "episodes": self.episodes}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TaskScore:
        """The score that `to_dict` wrote."""
        known = {k: v for k, v in fields.items() if k != "episodes"}
        if known.get("reading"):
            known["reading"] = Reading.from_dict(known["reading"])
        for key in ("random", "expert", "teacher_score"):
            known[key] = Reference(**known[key]) if known.get(key) else None
        for key in ("interval", "normalized_interval"):
            known[key] = tuple(known[key]) if known.get(key) else None
        return cls(**known)


def label(task: str, instruction: str = OWN) -> str:
    """The name of a row: a task, with the instruction where it is not the task's own."""
    return task if instruction == OWN else f"{task} ({instruction} instruction)"


def normalize(values: np.ndarray, random: float, expert: float) -> np.ndarray:
    """(agent - random) / (expert - random), elementwise.

    Raises:
        GeneralistError: the expert is no better than random.
    """
    if expert <= random:
        raise GeneralistError(
            f"A score cannot be normalised: the expert's {expert:g} is not above random's "
            f"{random:g}."
        )
    return (np.asarray(values, dtype=np.float64) - random) / (expert - random)


def score_task(
    task: Task,
    values: Sequence[float],
    *,
    seeds: Sequence[int] = (),
    prompted: bool = False,
    instruction: str = OWN,
    reading: Reading | None = None,
    changed: str | None = None,
    teacher: str | None = None,
) -> TaskScore:
    """Score (E,) values of one task's metric against the registry's random and expert.

    Args:
        task: of the registry.
        values: the task's metric, an episode each.
        seeds: of the environments.
        prompted: whether episodes began with a demonstration.
        instruction: `own`, `none` or `shuffled`.
        reading: what the rollout says of it besides the metric.
        changed: how the episodes differ from those the references were measured in. There is then
            no normalised score.
        teacher: name of the expert that made the training data.
    """
    values = [float(value) for value in values]
    own = Estimate.of(values, success=task.metric == "success")
    score = TaskScore(
        task=task.name, values=values, mean=own.mean, stderr=own.stderr, interval=own.interval,
        seeds=list(seeds), prompted=prompted, instruction=instruction, reading=reading,
        metric=task.metric,
        random=Reference.of(task.random_score, "random"),
        expert=Reference.of(task.expert_score, task.default_expert),
        excluded=changed or task.not_normalized, teacher=teacher,
    )  # fmt: skip
    if teacher is not None:
        score.teacher_score = Reference.of(task.score_by(teacher), teacher)
    if changed is None and score.random is not None:
        limit = score.estimate("random").interval
        if own.interval is not None and limit is not None:
            score.above_random = is_above(own.interval, limit)
    if score.excluded is None:
        _normalize(score)
    return score


def _normalize(score: TaskScore) -> None:
    """Fill in the normalised score and what is known of its error."""
    assert score.random is not None and score.expert is not None
    own, random, expert = map(score.estimate, ("", "random", "expert"))
    gap = expert.mean - random.mean
    value = score.normalized = (own.mean - random.mean) / gap
    # Delta method: the derivatives by agent, random and expert are 1/gap, (value - 1)/gap and
    # -value/gap.
    assert random.error is not None and expert.error is not None
    if own.error is not None:
        weighted = (own.error, (1 - value) * random.error, value * expert.error)
        score.normalized_stderr = math.hypot(*weighted) / gap
        rng = np.random.default_rng(0)
        agents, floors, ceilings = (each.draws(rng, RESAMPLES) for each in (own, random, expert))
        # A few draws of the references may meet; a tiny gap stands for none.
        gaps = np.maximum(ceilings - floors, 1e-6 * gap)
        score.normalized_interval = percentile_interval((agents - floors) / gaps)
    teacher = score.teacher_score
    if teacher is not None and teacher.name != score.expert.name and teacher.mean > random.mean:
        score.normalized_by_teacher = (own.mean - random.mean) / (teacher.mean - random.mean)


def is_changed(score: TaskScore) -> bool:
    """Whether its environment is not the registry's, or its episodes were cut."""
    return score.excluded not in (None, get_task(score.task).not_normalized)


def is_above(interval: Interval, other: Interval) -> bool:
    """True where two intervals are disjoint and the first lies above."""
    return interval[0] > other[1]


def aggregate(scores: Sequence[TaskScore], *, seed: int = 0) -> dict[str, Any]:
    """Aggregates over the normalised scores, one a task (and a run).

    Rows with another instruction than the task's own are left out.

    Args:
        scores: of tasks; those without a normalised score are named, with the reason.
        seed: of the draws.

    Returns:
        `tasks` and `excluded`; where a task is left `mean`, `median`, `iqm` and `optimality_gap`,
        each with an interval: `mean_interval`, .... An interval is None where a score has no known
        error.
    """
    scores = [score for score in scores if score.instruction == OWN]
    kept = [score for score in scores if score.normalized is not None]
    excluded = {score.task: score.excluded for score in scores if score.excluded}
    result: dict[str, Any] = {"tasks": [score.task for score in kept], "excluded": excluded}
    if not kept:
        return result
    point = np.array([score.normalized for score in kept], dtype=np.float64)
    drawn = _drawn(kept, np.random.default_rng(seed))
    for name, statistic in AGGREGATES.items():
        result[name] = float(statistic(point))
        result[f"{name}_interval"] = None
        if len(kept) == 1 and kept[0].normalized_interval is not None:
            ends = statistic(np.array(kept[0].normalized_interval)[:, None])
            result[f"{name}_interval"] = float(ends.min()), float(ends.max())
        elif drawn is not None:
            result[f"{name}_interval"] = percentile_interval(statistic(drawn))
    return result


def _drawn(scores: Sequence[TaskScore], rng: np.random.Generator) -> np.ndarray | None:
    """(R, K) normalised scores, each drawn about its own; None where an error is unknown.

    Errors are normal, but one factor widens all of a draw where few episodes tell the errors
    themselves: Student's t with the degrees of freedom of Satterthwaite (1946).
    """
    errors = [score.normalized_stderr for score in scores]
    if any(error is None for error in errors):
        return None
    variances, by_freedom = 0.0, 0.0
    for score in scores:
        for variance, freedom in _variances(score):
            variances += variance
            by_freedom += variance**2 / freedom
    noise = rng.standard_normal((RESAMPLES, len(scores)))
    if by_freedom > 0:
        freedom = variances**2 / by_freedom
        noise *= np.sqrt(freedom / rng.chisquare(freedom, (RESAMPLES, 1)))
    return np.array([score.normalized for score in scores]) + np.array(errors) * noise


def _variances(score: TaskScore) -> list[tuple[float, float]]:
    """Variance and degrees of freedom of agent, random and expert in the normalised score."""
    assert score.random is not None and score.expert is not None and score.normalized is not None
    gap = score.expert.mean - score.random.mean
    found = []
    for who, weight in (("", 1.0), ("random", 1 - score.normalized), ("expert", score.normalized)):
        estimate = score.estimate(who)
        assert estimate.error is not None
        freedom = math.inf if estimate.success else estimate.episodes - 1
        found.append(((weight * estimate.error / gap) ** 2, freedom))
    return found


__all__ = [
    "OWN", "Interval", "Reference", "TaskScore", "aggregate", "is_above", "is_changed", "label",
    "mean_stderr", "normalize", "score_task", "with_error",
]  # fmt: skip
