"""Whether an agent reads its instruction: what an episode shows of it besides success.

Wandering from thing to thing solves many missions, whatever the words say. Two figures tell reading
from wandering, each beside the same with no instruction and with another episode's: the mean
return, which falls with every step, and how often the first thing reached is the one named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from generalist.evaluation.intervals import Interval, mean_stderr, success_interval


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
