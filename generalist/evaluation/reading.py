"""Whether an agent reads its instruction: what an episode shows of it besides success.

Wandering from thing to thing solves many missions, whatever the words say. Two figures tell reading
from wandering, each beside the same with no instruction and with another episode's: the mean
return, which falls with every step, and how often the first thing reached is the one named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from generalist.envs.instructions import OWN
from generalist.evaluation.intervals import Interval, mean_stderr, success_interval, with_error

HEAD = ("task", "instruction", "score", "return ± s.e.", "first thing right", "95% interval")


@dataclass(frozen=True)
class Reading:
    """Figures of one row of a task.

    Attributes:
        mean_return: of all episodes.
        return_stderr: standard error of the mean; None for a single episode.
        missions: number of episodes whose mission decides which thing is to be reached first.
        named_first: share of these whose first reached thing was the one named; None without any.
        named_first_interval: its 95% interval (Clopper and Pearson 1934).
    """

    mean_return: float
    return_stderr: float | None
    missions: int = 0
    named_first: float | None = None
    named_first_interval: Interval | None = None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Reading:
        """The reading that `dataclasses.asdict` wrote, perhaps through JSON."""
        interval = fields.get("named_first_interval")
        return cls(**{**fields, "named_first_interval": None if interval is None
                      else (interval[0], interval[1])})  # fmt: skip


def reading_of(result: Mapping[str, Any]) -> Reading:
    """The reading of a result of acting, a `RolloutResult` in JSON form."""
    mean, stderr = mean_stderr(result["returns"])
    told = [each for each in result["named_first"] if each is not None]
    if not told:
        return Reading(mean, stderr)
    right = sum(told)
    return Reading(
        mean,
        stderr,
        missions=len(told),
        named_first=right / len(told),
        named_first_interval=success_interval(right, len(told)),
    )


class Scored(Protocol):
    """What is read of a row of scores (generalist.evaluation.scores.TaskScore).

    Attributes:
        task: name of the task.
        instruction: which instruction the agent was told.
        mean: mean of the task's metric.
        stderr: its standard error.
        reading: figures of reading; None where there are none.
    """

    @property
    def task(self) -> str:
        """See above."""

    @property
    def instruction(self) -> str:
        """See above."""

    @property
    def mean(self) -> float:
        """See above."""

    @property
    def stderr(self) -> float | None:
        """See above."""

    @property
    def reading(self) -> Reading | None:
        """See above."""


Row = TypeVar("Row", bound=Scored)


def language_rows(scores: Sequence[Row]) -> list[Row]:
    """The scores of tasks with an instruction, as far as the results show that they have one."""
    tasks = {
        each.task
        for each in scores
        if each.instruction != OWN or (each.reading and each.reading.named_first is not None)
    }
    return [each for each in scores if each.task in tasks and each.reading]


def cells(score: Scored) -> tuple[str, ...]:
    """A row below `HEAD`, in plain text."""
    found = score.reading
    assert found is not None
    right, interval = found.named_first, found.named_first_interval
    return (
        score.task,
        score.instruction,
        with_error(score.mean, score.stderr),
        with_error(found.mean_return, found.return_stderr),
        "–" if right is None else f"{right:.2f}",
        "" if interval is None else f"[{interval[0]:.2f}, {interval[1]:.2f}]",
    )
