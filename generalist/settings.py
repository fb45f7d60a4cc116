"""Settings that may differ from task to task: one value, or values by task, family or `default`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

DEFAULT = "default"  # stands for the tasks that a mapping does not name


def family_of(task: str) -> str:
    """`babyai` of `babyai/GoToLocal`."""
    return task.partition("/")[0]


def setting_of(setting: T | Mapping[str, T] | None, task: str) -> T | None:
    """The value for `task`: its own, its family's or the default; None where there is none."""
    if isinstance(setting, Mapping):
        return setting.get(task, setting.get(family_of(task), setting.get(DEFAULT)))
    return setting


def named_tasks(setting: object) -> list[str]:
    """The tasks and families that have a value of their own."""
    return [name for name in setting if name != DEFAULT] if isinstance(setting, Mapping) else []
