"""Mixture weights: by task, by family as in Gato's Table 1, or by how many tokens there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from generalist.settings import family_of


def weighted(
    tasks: Sequence[str], base: Sequence[float], given: Mapping[str, float]
) -> list[float]:
    """Weights of tasks after some are given by task or by family.

    A family's weight is that of all its tasks together (Gato, Table 1), shared in proportion to
    `base` by those that are not given one of their own. What is not given keeps `base`.

    Args:
        tasks: names of the tasks.
        base: weight of each before.
        given: weights by task or by family.

    Returns:
        The weight of each task.
    """
    weights = [given.get(task, weight) for task, weight in zip(tasks, base, strict=True)]
    for family in given:
        mine = [
            i for i, task in enumerate(tasks) if family_of(task) == family and task not in given
        ]
        total = sum(base[i] for i in mine)
        for i in mine:
            weights[i] = given[family] * base[i] / total if total else 0.0
    return weights


def tempered(tokens: Sequence[int], temperature: float) -> list[float]:
    """Weights of tasks proportional to n^(1/T), n the tokens of a task, with a mean of 1.

    T = 1 takes every token equally often, a large T every task; in between is what multilingual
    language models do (Arivazhagan et al. 2019, section 4.2).

    Args:
        tokens: n of each task.
        temperature: T, above 0.
    """
    raw = [float(count) ** (1 / temperature) for count in tokens]
    mean = sum(raw) / len(raw)
    return [weight / mean for weight in raw]
