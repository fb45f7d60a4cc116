"""Tasks that a run acts in without a demonstration: what their environments say in its place."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from generalist.errors import UsageError
from generalist.shards.manifest import DatasetHeader
from generalist.shards.spaces import space_to_json

if TYPE_CHECKING:
    from generalist.tokenization.processor import GeneralistProcessor
    from generalist.training.recipe import Recipe


def undemonstrated_headers(
    recipe: Recipe, headers: Mapping[str, DatasetHeader], processor: GeneralistProcessor
) -> dict[str, DatasetHeader]:
    """Task -> header of the tasks to improve in that the data do not hold.

    A pattern stands for tasks of the data alone. Layouts follow from the bounds of the spaces, as
    for every task that a checkpoint does not know.

    Args:
        recipe: of the run.
        headers: of the tasks that the data hold.
        processor: of the run.

    Raises:
        UsageError: there is no such task or option, or it is no environment.
        GeneralistError: the environment cannot be made, or its spaces cannot be laid out.
    """
    found = {}
    for task, wanted in recipe.improvement.tasks.items():
        if task not in headers and not set("*?[").intersection(task):
            found[task] = header_of_environment(task, wanted.options, processor)
    return found


def header_of_environment(
    task: str, options: Mapping[str, Any], processor: GeneralistProcessor
) -> DatasetHeader:
    """The header of episodes of a task, from its environment.

    Raises UsageError where the task is text, or there is no such task or option.
    """
    from generalist.envs import is_document_task, make

    if is_document_task(task):
        raise UsageError(
            f"improvement.tasks names {task}, which is text and has no actions; name environments."
        )
    env = make(task, **options)
    try:
        return DatasetHeader.create(
            task,
            processor.layout(
                env.observation_space,
                env.action_space,
                task=task,
                play=partial(make, task, **options),
            ),
            processor.vocabulary,
            processor.fingerprint,
            spaces={
                "observation": space_to_json(env.observation_space),
                "action": space_to_json(env.action_space),
            },
            collection={"options": dict(options)},
        )
    finally:
        env.close()
