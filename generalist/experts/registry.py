"""Which experts there are for which task, and how to get one by its name."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import gymnasium

from generalist.envs import get_task
from generalist.errors import UsageError

_HOME = "generalist.experts"
_REACHER = {
    "inverse-kinematics": "dmc:ReacherInverseKinematics",
    "damped-least-squares": "dmc:ReacherDampedLeastSquares",
}
_EXPERTS: dict[str, dict[str, str]] = {
    "gym/CartPole-v1": {"lqr": "classic:CartPoleLQR"},
    "gym/Pendulum-v1": {"swing-up": "classic:PendulumSwingUp"},
    "gym/MountainCarContinuous-v0": {"energy": "classic:MountainCarEnergy"},
    "gym/Acrobot-v1": {"energy": "classic:AcrobotEnergy"},
    "gym/LunarLander-v3": {
        "heuristic": "lander:LunarLanderGlide",
        "steady": "lander:LunarLanderSteady",
    },
    "atari/Pong": {"paddle": "pong:PongPaddle", "sighted": "pong:PongSighted"},
    "atari/Breakout": {"paddle": "breakout:BreakoutPaddle"},
    "atari/Freeway": {"crossing": "freeway:FreewayCrossing", "cautious": "freeway:FreewayCautious"},
    "dmc/cartpole-swingup": {"swing-up": "dmc:CartPoleSwingUp"},
    "dmc/cartpole-balance": {"swing-up": "dmc:CartPoleSwingUp"},
    "dmc/reacher-easy": _REACHER,
    "dmc/reacher-hard": _REACHER,
    "dmc/pendulum-swingup": {"swing-up": "dmc:PendulumSwingUp"},
}


class Expert(Protocol):
    """A demonstrator that can be asked for its action at any state of its task.

    `env` is always the environment as it stands now, wrapped or not; an expert may read its
    simulator's state, so it can know more than the agent sees.
    """

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Begin an episode; `env` has just been reset with `seed`."""

    def label(self, observation: Any, env: gymnasium.Env) -> Any:
        """The expert's own action at the current state, also one it did not reach itself."""


def expert_names(task_name: str) -> tuple[str, ...]:
    """The names of the experts of a task, the default one first."""
    default = get_task(task_name).default_expert
    names = _table(task_name)
    return tuple(sorted(names, key=lambda name: (name != default, name)))


def get_expert(task_name: str, name: str | None = None) -> Expert:
    """A new expert for the task: its default one, or by name.

    `NAME@N` gives one that searches a budget of N a decision; what N counts, its class says.
    Your own expert is named `package.module:Class`; the class is called without arguments.
    Raises UsageError where the task has no such expert.
    """
    known = _table(task_name)
    name, at, budget = (name or get_task(task_name).default_expert).partition("@")
    if at and not (budget.isdecimal() and int(budget) > 0):
        raise UsageError(f"An expert's budget is NAME@N with N at least 1, got {name}@{budget}.")
    if name and ":" in name:
        module, _, attribute = name.partition(":")
    elif name in known:
        module, _, attribute = known[name].partition(":")
        module = f"{_HOME}.{module}"
    else:
        there_is = f"it has {', '.join(known)}" if known else "it has none of its own"
        asked = f"no expert {name!r}" if name else "no expert"
        raise UsageError(
            f"{task_name} has {asked}; {there_is}, and yours is named 'package.module:Class'."
        )
    try:
        expert = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"The expert {name!r} cannot be imported: {error}.") from error
    if not budget:
        return expert()
    try:
        return expert(int(budget))
    except TypeError as error:
        raise UsageError(f"The expert {name!r} has no budget to set with @{budget}.") from error


def _table(task_name: str) -> dict[str, str]:
    get_task(task_name)  # says what is wrong with an unknown name
    family = task_name.partition("/")[0]
    if family == "babyai":
        return {"bot": "babyai:BabyAIExpert"}
    if family == "board":
        return {"mcts": "board:BoardSearch"}
    return _EXPERTS.get(task_name, {})
