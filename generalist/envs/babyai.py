"""BabyAI: instruction-following in a grid world, every level that minigrid carries.

Chevalier-Boisvert et al. 2019 (arXiv:1810.08272). The agent sees the 7x7 cells before it and its
compass direction; the instruction is announced once, in `info["instruction"]` at reset.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import re
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator

from generalist.envs.babyai_hindsight import Hindsight
from generalist.envs.first_thing import FirstThing
from generalist.envs.registry import Task
from generalist.errors import MissingPackageError

_PREFIX = "BabyAI-"
# Classes whose own documentation says something else than what they do.
_CORRECTED = {
    "GoToLocal": "go to an object, in one room with distractors",
    "OpenDoor": "open a door of the room",
    "OpenRedDoor": "open the red door of the room",
    "PutNextLocal": "put an object next to another, in one room with distractors",
}
# Levels that we do not vouch for, because the bot fails in them: it does not look into boxes, and
# it opens whatever door is in its way where that ends the mission.
_BOT_FAILS = ("KeyInBox", "OpenDoorsOrderN2Debug", "OpenDoorsOrderN4Debug")
VIEW_CELLS = 7
# The highest object type, colour and door state of minigrid's cell encoding; their counts
# multiply to 11 * 6 * 3 = 198, so that a cell is one token.
CELL_HIGH = (10, 5, 2)


@functools.cache
def _levels() -> dict[str, gymnasium.envs.registration.EnvSpec]:
    """Level name -> Gymnasium's specification of it."""
    try:
        import minigrid  # noqa: F401  (registers its ids with Gymnasium)
    except ImportError as error:
        raise MissingPackageError("minigrid", "babyai/") from error
    return {
        env_id.removeprefix(_PREFIX).rpartition("-v")[0]: spec
        for env_id, spec in gymnasium.registry.items()
        if env_id.startswith(_PREFIX)
    }


def __getattr__(name: str) -> dict[str, str]:
    """REGISTERED, made when it is first asked for: only minigrid knows what its levels are."""
    if name != "REGISTERED":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _registered()


@functools.cache
def _registered() -> dict[str, str]:
    return {name: _description(name) for name in names() if name not in _BOT_FAILS}


def _description(name: str) -> str:
    """What the level's own documentation says first, and how it departs from its class."""
    spec = _levels()[name]
    level = load_env_creator(spec.entry_point)
    text = (inspect.getdoc(level) or "").partition("## Description")[2].strip()
    sentence = re.split(r"\.|\n\n|(?<!,)\n(?=[A-Z(])| \(", text)[0].replace("\n", " ")
    sentence = _CORRECTED.get(level.__name__, sentence[:1].lower() + sentence[1:])
    options = ", ".join(f"{key} {value}" for key, value in spec.kwargs.items())
    return f"{sentence} ({options})" if options else sentence


def names() -> list[str]:
    """Every BabyAI level."""
    return sorted(_levels())


def find(name: str) -> Task | None:
    """The task for a level; None for an unknown one."""
    if name not in _levels():
        return None
    return Task(
        name=f"babyai/{name}",
        family="babyai",
        make=functools.partial(_make, name),
        step_limit=functools.partial(_level_steps, name),
        description=_description(name),
        metric="success",
        default_expert="bot",
    )


def _level_steps(name: str) -> int:
    """The level's own step limit; the largest of ten missions, for some levels set one for each."""
    return max(_level_limits(name))


@functools.cache
def _level_limits(name: str) -> frozenset[int]:
    """The step limits of ten missions of a level."""
    env = _make(name)
    limits = []
    for seed in range(10):
        env.reset(seed=seed)
        limits.append(int(env.unwrapped.max_steps))
    return frozenset(limits)


def defaults(name: str) -> dict[str, Any]:
    """The level's step limit; None where it differs from mission to mission."""
    limits = _level_limits(name)
    return {"max_steps": max(limits) if len(limits) == 1 else None}


def _make(
    name: str, *, render_mode: str | None = None, max_steps: int | None = None
) -> gymnasium.Env:
    """Make the level with the observation that this project uses.

    max_steps: In place of the level's own limit, on which minigrid's rewards depend.
    """
    options = {} if max_steps is None else {"max_steps": max_steps}
    with _quiet():
        env = gymnasium.make(
            _levels()[name].id, render_mode=render_mode, disable_env_checker=True, **options
        )
    return BabyAIEnv(env)


@contextlib.contextmanager
def _quiet() -> Any:
    """minigrid prints each rejected mission to stdout, where a command's own answer belongs."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


class BabyAIEnv(gymnasium.Wrapper):
    """Observations as {"direction": Discrete(4), "image": (7, 7, 3) uint8}; raw rewards.

    Observations: `direction` is 0 east, 1 south, 2 west or 3 north. `image` holds object type,
        colour and door state of each cell in view, with the agent at [3, 6].
    Actions: Discrete, as minigrid numbers them.
    Rewards: 1 - 0.9 * steps / max_steps on success, else 0. So success is a positive return.
    Info: `instruction` at reset. After each step `named_first`, whether the first thing reached is
        the one that the mission names (see `FirstThing`); left out where the mission does not
        decide which thing comes first. `hindsight` in the step in which something else than the
        mission was done first (see `Hindsight`).
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        high = np.broadcast_to(np.array(CELL_HIGH, np.uint8), (VIEW_CELLS, VIEW_CELLS, 3))
        self.observation_space = spaces.Dict(
            {
                "direction": spaces.Discrete(4),
                "image": spaces.Box(np.zeros_like(high), high.copy(), dtype=np.uint8),
            }
        )
        self.last_action: int | None = None  # what was executed, which the bot has to be told
        self._first: FirstThing | None = None
        self._hindsight: Hindsight | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A new mission; `info["instruction"]` says it in words."""
        with _quiet():
            observation, info = self.env.reset(seed=seed, options=options)
        self.last_action = None
        self._first = FirstThing(self.unwrapped)
        self._hindsight = Hindsight(self.unwrapped)
        return self._observation(observation), {**info, "instruction": observation["mission"]}

    def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Turn left, turn right, go forward, pick up, drop, toggle or declare done."""
        observation, reward, terminated, truncated, info = self.env.step(int(action))
        self.last_action = int(action)
        assert self._first is not None and self._hindsight is not None  # reset came before
        self._first.see()
        if self._first.named is not None:
            info = {**info, "named_first": self._first.named}
        if (instead := self._hindsight.see(int(action))) is not None:
            info = {**info, "hindsight": instead}
        return self._observation(observation), float(reward), terminated, truncated, info

    @staticmethod
    def _observation(raw: dict[str, Any]) -> dict[str, Any]:
        return {"direction": np.int64(raw["direction"]), "image": raw["image"].astype(np.uint8)}
