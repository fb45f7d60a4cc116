"""Plans: how an agent looks ahead before it acts, by the word they begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from generalist.acting.beams import BeamPlan, BeamPolicy
from generalist.acting.boards import TreePlan, is_board, tree_policy
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
        "A plan is 'tree:simulations=100' in board games, or 'beam:width=32,horizon=10' with a "
        f"world model; got {text!r}."
    )


def check_plan(plan: Plan, agent: Agent, tasks: Sequence[str]) -> None:
    """Raise UsageError where an agent cannot plan so in one of these tasks."""
    for task in tasks:
        if isinstance(plan, TreePlan) and not is_board(task):
            raise UsageError(
                f"A tree search is for board games, and {task} is none; plan by 'beam', or leave "
                "the plan out."
            )
        if isinstance(plan, BeamPlan) and task in agent.layouts:
            BeamPolicy(agent.for_task(task), plan)


def planned(agent: Agent, plan: Plan) -> Policy:
    """An agent that plans, in its task.

    Raises:
        UsageError: it cannot, for a reason that is given.
    """
    if isinstance(plan, TreePlan):
        return tree_policy(agent, plan)
    return BeamPolicy(agent, plan)
