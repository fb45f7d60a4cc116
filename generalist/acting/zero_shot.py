"""The agent for a task that its checkpoint may not have been trained on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium

from generalist import envs
from generalist.acting.boards import unknown_board_layout
from generalist.errors import UsageError
from generalist.tokenization.fit_backgrounds import has_fitted

if TYPE_CHECKING:
    from generalist.acting.agent import Agent


def agent_for(
    agent: Agent,
    task: str,
    env: gymnasium.Env,
    options: Mapping[str, Any] | None = None,
    *,
    say: Callable[[str], None] | None = None,
) -> Agent:
    """The agent for `task`: a new one over the same weights, unless `agent` already acts in it.

    Args:
        agent: an agent of any task.
        task: name of the task.
        env: an environment of the task; its spaces give the layout of an unknown task.
        options: of that environment. Frames of an unknown task that have no background get one from
            random play of another environment with these options.
        say: is called with a line on a background that was fitted.

    Raises:
        UsageError: the task is answered in text, and the checkpoint has learned to write none.
    """
    if agent.task == task:
        return agent
    layout = None
    if task not in agent.layouts:
        layout = unknown_board_layout(task, agent.layouts, agent.processor)
        if layout is None:
            layout = agent.processor.layout(
                env.observation_space,
                env.action_space,
                task=task,
                play=functools.partial(envs.make, task, **(options or {})),
            )
        if layout.is_written and not any(each.is_written for each in agent.layouts.values()):
            raise UsageError(
                f"{task} is answered in text, and the checkpoint {agent.name or 'given'} has "
                "learned to write none. Train one on captions or questions first (generalist "
                "collect captions, generalist train captions)."
            )
        if say is not None and has_fitted(layout):
            say(f"the still background of {task} was fitted to random play.")
    return agent.for_task(task, layout)
