"""Rows of the tasks that have an instruction: with their own, with none, with another episode's."""

from __future__ import annotations

from collections.abc import Sequence

from generalist.evaluation.intervals import with_error
from generalist.evaluation.scores import OWN, TaskScore

HEAD = ("task", "instruction", "score", "return ± s.e.", "first thing right", "95% interval")


def language_rows(scores: Sequence[TaskScore]) -> list[TaskScore]:
    """The scores of tasks with an instruction, as far as the results show that they have one."""
    tasks = {
        each.task
        for each in scores
        if each.instruction != OWN or (each.reading and each.reading.named_first is not None)
    }
    return [each for each in scores if each.task in tasks and each.reading]


def cells(score: TaskScore) -> tuple[str, ...]:
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
