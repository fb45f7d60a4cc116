"""Patterns such as `babyai/*` in a dataset spec, and the tasks that they never stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from generalist.envs import is_pattern, matching_names
from generalist.errors import UsageError
from generalist.specs import find_spec, read_yaml

HELDOUT = "heldout"  # datasets/heldout.yaml


def heldout_tasks() -> list[str]:
    """The tasks of datasets/heldout.yaml, which no shipped mixture of several families holds."""
    return [entry["task"] for entry in read_yaml(find_spec("datasets", HELDOUT))["tasks"]]


def written_out(entries: Sequence[Any]) -> list[Any]:
    """The entries of a spec's `tasks`, with one a task in place of those whose task is a pattern.

    A pattern stands for the registered tasks with an expert that it matches, without those that
    have an entry of their own or are held out.

    Raises:
        ValueError: a pattern matches none.
    """
    names = [entry.get("task") if isinstance(entry, dict) else None for entry in entries]
    taken = {name for name in names if isinstance(name, str)}
    found: list[Any] = []
    for name, entry in zip(names, entries, strict=True):
        if not isinstance(name, str) or not is_pattern(name):
            found.append(entry)
            continue
        try:
            matches = matching_names(name)
        except UsageError as error:
            raise ValueError(str(error)) from error
        fresh = [each for each in matches if each not in {*taken, *heldout_tasks()}]
        taken.update(fresh)
        found += [{**entry, "task": each} for each in fresh]
    return found
