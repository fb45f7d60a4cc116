"""Environments: every task as a plain Gymnasium environment, found by its name `family/Name`.

Importing this package loads neither torch nor any simulator; a family's packages are imported
when one of its tasks is first made.
"""

from generalist.envs.registry import (
    Score,
    Task,
    family_names,
    get_task,
    is_document_task,
    is_pattern,
    known_names,
    list_tasks,
    make,
    make_vec,
    matching_names,
)
from generalist.envs.vector import VectorEpisodes

__all__ = [
    "Score",
    "Task",
    "VectorEpisodes",
    "family_names",
    "get_task",
    "is_document_task",
    "is_pattern",
    "known_names",
    "list_tasks",
    "make",
    "make_vec",
    "matching_names",
]
