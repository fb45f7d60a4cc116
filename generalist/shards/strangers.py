"""What a folder from elsewhere may name, and what happens otherwise.

A dataset or a checkpoint may have been downloaded, so the names in it are data, never code:

files    `shard-NNNNN.tar` beside the manifest, and the files of a checkpoint below its own folder;
         any other name is a GeneralistError when the folder is opened.
tasks    `family/Name`. `gym/package.module:ID` names a module, which is imported only where the
         user names that task, or has imported the module already.
experts  those of this package, such as `lqr` or `planner@256`. `package.module:Class` and the
         folder of a trained expert are used only where the user's own recipe, spec or command
         line names them.
"""

from __future__ import annotations

import fnmatch
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from generalist.errors import UsageError

_SHARD = re.compile(r"shard-[0-9]{5,}\.tar")
_EXPERT = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(@[0-9]+)?")


def is_shard_name(name: Any) -> bool:
    """True for `shard-NNNNN.tar`, which lies within its folder."""
    return isinstance(name, str) and _SHARD.fullmatch(name) is not None


def is_task_name(name: Any) -> bool:
    """True for `family/Name` whose parts, taken as folders, stay below their root."""
    if not isinstance(name, str) or not set("\\\0").isdisjoint(name):
        return False
    parts = name.split("/")
    return len(parts) > 1 and {"", ".", ".."}.isdisjoint(parts)


def names_new_code(task: str) -> bool:
    """Whether making the environment of a task would import a module that is not imported yet."""
    module, colon, _ = task.partition("/")[2].rpartition(":")
    return bool(colon) and module not in sys.modules


def tasks_matching(tasks: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The tasks of some data that a user's names and patterns stand for.

    No pattern stands for a task that names new code; such a task is left out with a warning unless
    its full name is given.
    """
    wanted, found = list(patterns), []
    for task in tasks:
        if task in wanted:
            found.append(task)
        elif any(fnmatch.fnmatchcase(task, pattern) for pattern in wanted):
            if not names_new_code(task):
                found.append(task)
                continue
            warnings.warn(
                f"{task} names a module to import, for which no pattern stands; give its full name "
                "to act in it.",
                stacklevel=3,
            )
    return found


def expert_of_header(task: str, collection: Mapping[str, Any]) -> str | None:
    """The expert that demonstrated a dataset, by its name; None for the task's default.

    task, collection: of the dataset's header.

    Raises UsageError where the dataset names code or a folder: the user has to name that.
    """
    name = collection.get("expert")
    if name is None or isinstance(name, str) and _EXPERT.fullmatch(name):
        return name
    raise UsageError(
        f"The data of {task} name the expert {name!r}, which is code or a folder. Those are "
        f"not taken from data; name it yourself: corrections.tasks.{task}.expert in a "
        "recipe, --expert in a command."
    )
