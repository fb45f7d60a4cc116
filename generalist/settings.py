"""Settings that may differ from task to task: one value, or values by task with a `default`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

DEFAULT = "default"  # stands for the tasks that a mapping does not name


def setting_of(setting: T | Mapping[str, T] | None, task: str) -> T | None:
    """The value for `task`; None where there is none."""
    if isinstance(setting, Mapping):
        return setting.get(task, setting.get(DEFAULT))
    return setting


def named_tasks(setting: object) -> list[str]:
    """The tasks that have a value of their own."""
    return [name for name in setting if name != DEFAULT] if isinstance(setting, Mapping) else []
