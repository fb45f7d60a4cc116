"""Which experts there are for which task, and how to get one by its name."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import gymnasium

from generalist.envs import get_task
from generalist.errors import GeneralistError, UsageError, in_words
from generalist.experts.trained import TrainedExpert, is_trained

_HOME = "generalist.experts."
_SAMPLING = {"planner": "generalist.planning.sampling_planner:SamplingPlanner"}
_WIDTH = {"planner": "generalist.planning.width_search:WidthSearch"}
_REACHER = {
    "inverse-kinematics": "dmc:ReacherInverseKinematics",
    "damped-least-squares": "dmc:ReacherDampedLeastSquares",
}
# Those of Gymnasium's own whose state can be saved and restored; Box2D's cannot.
_PLANNED_GYM = {
    *("CartPole-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1"),
    *("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "HumanoidStandup-v5"),
    *("InvertedDoublePendulum-v5", "InvertedPendulum-v5", "Pusher-v5", "Reacher-v5"),
    *("Swimmer-v5", "Walker2d-v5"),
}
_NOT_RESTORED = {"TicTacToe3D"}  # see `simulators.py`
_EXPERTS: dict[str, dict[str, str]] = {
    "gym/CartPole-v1": {"lqr": "classic:CartPoleLQR"},
    "gym/Pendulum-v1": {"swing-up": "classic:PendulumSwingUp"},
    "gym/MountainCarContinuous-v0": {"energy": "classic:MountainCarEnergy"},
    "gym/Acrobot-v1": {"energy": "classic:AcrobotEnergy"},
    "gym/MountainCar-v0": {"energy": "classic:MountainCarPush"},
    "gym/LunarLander-v3": {
        "heuristic": "lander:LunarLanderGlide",
        "steady": "lander:LunarLanderSteady",
    },
    "gym/LunarLanderContinuous-v3": {"heuristic": "lander:LunarLanderThrottled"},
    "atari/Pong": {"paddle": "pong:PongPaddle", "steady": "pong:PongSteady"},
    "atari/Breakout": {"paddle": "breakout:BreakoutPaddle"},
    "atari/Freeway": {"crossing": "freeway:FreewayCrossing", "cautious": "freeway:FreewayCautious"},
    "dmc/cartpole-swingup": {"swing-up": "dmc:CartPoleSwingUp"},
    "dmc/cartpole-balance": {"swing-up": "dmc:CartPoleSwingUp"},
    "dmc/reacher-easy": _REACHER,
    "dmc/reacher-hard": _REACHER,
    "dmc/pendulum-swingup": {"swing-up": "dmc:PendulumSwingUp"},
    "doom/basic": {"align": "doom:DoomAligner"},
    "doom/deadly_corridor": {"fighter": "doom:DoomFighter"},
    "doom/deathmatch": {"fighter": "doom:DoomFighter"},
    "doom/defend_the_center": {"turret": "doom:DoomTurret"},
    "doom/defend_the_line": {"turret": "doom:DoomTurret"},
    "doom/health_gathering": {"gatherer": "doom:DoomGatherer"},
    "doom/health_gathering_supreme": {"gatherer": "doom:DoomGatherer"},
    "doom/my_way_home": {"homecomer": "doom:DoomHomecomer"},
    "doom/predict_position": {"leader": "doom:DoomLeader"},
    "doom/rocket_basic": {"align": "doom:DoomAligner"},
    "doom/simpler_basic": {"align": "doom:DoomAligner"},
    "doom/take_cover": {"dodger": "doom:DoomDodger"},
}
# Where one expert knows every task of a family.
_FAMILY_EXPERTS: dict[str, dict[str, str]] = {
    "babyai": {"bot": "babyai:BabyAIExpert"},
    "board": {"mcts": "board:BoardSearch"},
    "caption": {"truth": "truth:Truth", "frequent": "truth:MostFrequent"},
    "doomworld": {"guide": "worlds:WorldGuide"},
    "metaworld": {"scripted": "metaworld:MetaWorldScripted"},
    "miniworld": {"guide": "worlds:WorldGuide"},
    "vqa": {"truth": "truth:Truth", "frequent": "truth:MostFrequent"},
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

    A planner's name may say how many simulator steps it may take for a decision: `planner@256`.
    One that `generalist expert train` made is named by its folder. Your own is named
    `package.module:Class`; the class is called without arguments, or with budget=256 for
    `package.module:Class@256`.

    Raises:
        UsageError: the task has no such expert.
    """
    known = _table(task_name)
    name = name or get_task(task_name).default_expert
    if name and is_trained(name):
        return TrainedExpert.load(name, task_name)
    short, at, steps = name.partition("@")
    if ":" in short:
        module, _, attribute = short.partition(":")
    elif short in known:
        module, _, attribute = known[short].partition(":")
        module = module if "." in module else f"{_HOME}{module}"
    else:
        there_is = f"it has {', '.join(known)}" if known else "it has none of its own"
        asked = f"no expert {short!r}" if name else "no expert"
        raise UsageError(
            f"{task_name} has {asked}; {there_is}, and yours is named "
            "'package.module:Class', a trained one by its folder."
        )
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of the user's own may fail in any way
        raise UsageError(f"The expert {name!r} cannot be imported: {in_words(error)}.") from error
    options = {"budget": _budget(kind, name, steps)} if at else {}
    try:
        return kind(**options)
    except GeneralistError:
        raise
    except Exception as error:
        raise UsageError(f"The expert {name!r} cannot be made: {in_words(error)}.") from error


def _budget(kind: Any, name: str, steps: str) -> int:
    """The number behind the @ of an expert's name."""
    if not hasattr(kind, "default_budget"):
        raise UsageError(
            f"The expert {name!r} is no planner and takes no budget; leave out '@{steps}'."
        )
    if not (steps.isascii() and steps.isdecimal() and int(steps) >= 1):
        raise UsageError(
            f"Behind the @ stands how many simulator steps a decision may take, at least 1, as in "
            f"'planner@256'; got {name!r}."
        )
    return int(steps)


def _table(task_name: str) -> dict[str, str]:
    get_task(task_name)  # says what is wrong with an unknown name
    family, _, short = task_name.partition("/")
    if family in _FAMILY_EXPERTS:
        return _FAMILY_EXPERTS[family]
    return _EXPERTS.get(task_name, {}) | _planner(family, short)


def _planner(family: str, short: str) -> dict[str, str]:
    """Where the simulator's state can be saved and restored, a planner is an expert too."""
    if family == "dmc" or (family == "gym" and short in _PLANNED_GYM):
        return _SAMPLING
    return _WIDTH if family == "atari" and short not in _NOT_RESTORED else {}
