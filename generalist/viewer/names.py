"""Names of actions and of the cells of grids, for people."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium import spaces

from generalist.envs.board import BoardEnv
from generalist.envs.board_moves import move_names

# Where neither the environment nor its library says what the numbers mean: the pages of Gymnasium.
_GYM = {
    "gym/CartPole-v1": ("push left", "push right"),
    "gym/Acrobot-v1": ("torque -1", "no torque", "torque +1"),
    "gym/MountainCar-v0": ("push left", "nothing", "push right"),
    "gym/LunarLander-v3": ("nothing", "left engine", "main engine", "right engine"),
}


def action_names(task: str, env: gymnasium.Env) -> list[str] | None:
    """What the actions of a discrete task are called; None where nothing says so."""
    space = env.action_space
    if not isinstance(space, spaces.Discrete):
        return None
    inner: Any = env.unwrapped
    names: list[str] | None = None
    if task in _GYM:
        names = list(_GYM[task])
    elif isinstance(getattr(inner, "action_names", None), tuple):  # of our Atari
        names = [str(each).lower() for each in inner.action_names]
    elif hasattr(inner, "get_action_meanings"):
        names = [str(each).lower() for each in inner.get_action_meanings()]
    elif hasattr(inner, "actions") and hasattr(inner.actions, "__members__"):  # of minigrid
        names = [each.replace("_", " ") for each in inner.actions.__members__]
    return names if names is not None and len(names) == space.n else None


def board_move_names(env: gymnasium.Env) -> list[str] | None:
    """What the moves of a board game are called; None for other environments.

    They name actions. The tokens of a model that plays on a common board are other numbers.
    """
    inner: Any = env.unwrapped
    return move_names(inner.view.game) if isinstance(inner, BoardEnv) else None


def cell_names(env: gymnasium.Env) -> dict[str, list[str]] | None:
    """Words for the channels of a grid's cells (object, color, state); None for other grids."""
    if type(env.unwrapped).__module__.split(".")[0] != "minigrid":
        return None
    from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

    return {
        "object": sorted(OBJECT_TO_IDX, key=OBJECT_TO_IDX.__getitem__),
        "color": sorted(COLOR_TO_IDX, key=COLOR_TO_IDX.__getitem__),
        "state": sorted(STATE_TO_IDX, key=STATE_TO_IDX.__getitem__),
    }
