"""Gymnasium: any installed id, `gym/ID`; with a module to import first, `gym/package.module:ID`."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from generalist.envs.registry import Task
from generalist.envs.rendering import use_offscreen_gl
from generalist.errors import GeneralistError, MissingPackageError

REGISTERED = {
    "CartPole-v1": "keep a pole upright by pushing its cart left or right",
    "Pendulum-v1": "swing a pendulum up with too little torque, and hold it there",
    "MountainCarContinuous-v0": "rock an underpowered car out of a valley",
    "LunarLander-v3": "land softly between two flags with three thrusters",
    "Acrobot-v1": "swing the tip of a two-link arm above a line",
}
_EXPERTS = {
    "CartPole-v1": "lqr",
    "Pendulum-v1": "swing-up",
    "MountainCarContinuous-v0": "energy",
    "LunarLander-v3": "heuristic",
    "Acrobot-v1": "energy",
}
_NO_LIMIT_STEPS = 10_000  # where the id itself sets no limit, so that every episode ends


def names() -> list[str]:
    """Every id in Gymnasium's registry that needs no version guessing."""
    return list(gymnasium.registry)


def find(name: str) -> Task | None:
    """The task for an installed id; None for an unknown one."""
    spec = _spec(name)
    if spec is None:
        return None
    return Task(
        name=f"gym/{name}",
        family="gym",
        make=functools.partial(_make, name),
        max_steps=spec.max_episode_steps or _NO_LIMIT_STEPS,
        description=REGISTERED.get(name, f"the Gymnasium environment {name}"),
        frames=name not in REGISTERED and _sees_images(name),
        default_expert=_EXPERTS.get(name, ""),
    )


def _spec(name: str) -> EnvSpec | None:
    module, _, env_id = name.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise GeneralistError(
                f"gym/{name} asks for the module {module!r}, which cannot be imported: {error}."
            ) from error
    return gymnasium.registry.get(env_id)


def _sees_images(name: str) -> bool:
    try:
        env = _make(name)
    except GeneralistError:
        return False
    space = env.observation_space
    env.close()
    leaves = list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]
    return any(
        isinstance(leaf, spaces.Box)
        and len(leaf.shape) == 3
        and leaf.dtype == "uint8"
        and leaf.shape[-1] in (1, 3)
        and min(leaf.shape[:2]) >= 32
        for leaf in leaves
    )


def _make(
    name: str, render_mode: str | None = None, max_steps: int | None = None, **options: Any
) -> gymnasium.Env:
    """gymnasium.make without its checking wrapper, always with a step limit."""
    spec = _spec(name)
    assert spec is not None
    if render_mode is not None and "mujoco" in str(spec.entry_point):
        use_offscreen_gl()
    try:
        return gymnasium.make(
            name.rpartition(":")[2],
            render_mode=render_mode,
            max_episode_steps=max_steps or spec.max_episode_steps or _NO_LIMIT_STEPS,
            disable_env_checker=True,
            **options,
        )
    except gymnasium.error.DependencyNotInstalled as error:
        raise GeneralistError(f"gym/{name} cannot be made: {error}") from error
    except ModuleNotFoundError as error:
        raise MissingPackageError(str(error.name), f"gym/{name}") from error
