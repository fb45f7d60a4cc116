"""Plans: how an agent looks ahead before it acts, by the word they begin with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import gymnasium

from generalist import envs
from generalist.acting.beams import BeamPlan, BeamPolicy
from generalist.acting.boards import check_board_plan, is_board, tree_policy
from generalist.acting.trees import TreePlan, TreePolicy, check_simulator
from generalist.errors import UsageError
from generalist.policy import Policy

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

Plan = TreePlan | BeamPlan


def parse_plan(text: str) -> Plan:
    """From how it is written, such as `tree:simulations=100` or `beam:width=32,horizon=10`.

    Raises:
        UsageError: it is written otherwise.
    """
    kind = text.partition(":")[0]
    if kind == "tree":
        return TreePlan.parse(text)
    if kind == "beam":
        return BeamPlan.parse(text)
    raise UsageError(
        "A plan is 'tree:simulations=100' in board games and simulators that can be restored, or "
        f"'beam:width=32,horizon=10' with a world model; got {text!r}."
    )


def check_plan(plan: Plan, agent: Agent, tasks: Sequence[str]) -> None:
    """Raise UsageError where an agent cannot plan so in one of these tasks."""
    for task in tasks:
        if isinstance(plan, BeamPlan):
            if task in agent.layouts:
                BeamPolicy(agent.for_task(task), plan)
        elif is_board(task):
            check_board_plan(plan, task)
        else:
            with closing(envs.make(task)) as env:
                check_simulator(task, env)
                if task in agent.layouts:
                    TreePolicy(agent.for_task(task), plan, [env])


def planned(agent: Agent, plan: Plan, environments: Sequence[gymnasium.Env]) -> Policy:
    """An agent that plans, in its task.

    Args:
        agent: the agent.
        plan: how it plans.
        environments: of the task; environment i is slot i.

    Raises:
        UsageError: it cannot, for a reason that is given.
    """
    if isinstance(plan, BeamPlan):
        return BeamPolicy(agent, plan)
    if is_board(agent.task):
        return tree_policy(agent, plan)
    return TreePolicy(agent, plan, environments)
