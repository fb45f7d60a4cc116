"""How often training has seen each label of a task: what is seen often is learned by heart."""

from __future__ import annotations

from collections.abc import Mapping

OFTEN = 10.0
"""From so many times on, on average, a run warns. Clones of the quickstart's tasks that had seen
their labels 17 to 19 times lost at held-out episodes what they gained at their own."""


def times_seen(seen: Mapping[str, int], labels: Mapping[str, int]) -> dict[str, float]:
    """How often each label of a task was seen, on average.

    Args:
        seen: task -> number of targets in all forward passes so far.
        labels: task -> number of labels in its data.

    Returns:
        Task -> seen / labels, of the tasks that have labels.
    """
    return {task: seen.get(task, 0) / count for task, count in sorted(labels.items()) if count}


def warning(task: str, times: float, labels: int) -> str:
    """What is said of a task whose labels were seen `OFTEN` times, in one line."""
    return (
        f"{task}: each of its {labels:,} labels was seen {times:.1f} times on average. The model "
        "begins to learn them by heart. Collect more episodes of it, correct it more often, or "
        "lower its weight."
    )


def summary(times: Mapping[str, float]) -> str:
    """One line with all tasks, the most often seen first."""
    ranked = sorted(times.items(), key=lambda item: -item[1])
    return "Times each label was seen: " + ", ".join(f"{task} {x:.1f}" for task, x in ranked) + "."
