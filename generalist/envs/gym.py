"""Gymnasium: any installed id, `gym/ID`; with a module to import first, `gym/package.module:ID`."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from generalist.envs.registry import Task
from generalist.envs.rendering import use_offscreen_gl
from generalist.envs.wrapping import wrapped
from generalist.errors import GeneralistError, MissingPackageError, causes

REGISTERED = {
    "CartPole-v1": "keep a pole upright by pushing its cart left or right",
    "Pendulum-v1": "swing a pendulum up with too little torque, and hold it there",
    "MountainCarContinuous-v0": "rock an underpowered car out of a valley",
    "LunarLander-v3": "land softly between two flags with three thrusters",
    "Acrobot-v1": "swing the tip of a two-link arm above a line",
    "MountainCar-v0": "rock an underpowered car out of a valley, by pushes left or right",
    "BipedalWalker-v3": "walk over gentle ground on two legs, sensing it by lidar",
    "BipedalWalkerHardcore-v3": "walk on two legs over ladders, stumps and pits",
    "LunarLanderContinuous-v3": "land softly between two flags with throttled thrusters",
    "Ant-v5": "run with a four-legged body",
    "HalfCheetah-v5": "run with a two-legged body in a plane",
    "Hopper-v5": "hop forward on one leg without falling",
    "Humanoid-v5": "walk forward on two legs without falling",
    "HumanoidStandup-v5": "get up from lying on the back",
    "InvertedDoublePendulum-v5": "keep two poles, one on the other, upright on a cart",
    "InvertedPendulum-v5": "keep a pole upright on a cart",
    "Pusher-v5": "push an object to a goal with an arm",
    "Reacher-v5": "bring the tip of a two-link arm to a target",
    "Swimmer-v5": "swim forward with a three-link body",
    "Walker2d-v5": "walk forward on two legs in a plane without falling",
}
_EXPERTS = {
    "CartPole-v1": "lqr",
    "Pendulum-v1": "swing-up",
    "MountainCarContinuous-v0": "energy",
    "LunarLander-v3": "heuristic",
    "Acrobot-v1": "energy",
    "MountainCar-v0": "energy",
    "LunarLanderContinuous-v3": "heuristic",
    "Ant-v5": "planner",
    "HalfCheetah-v5": "planner",
    "Hopper-v5": "planner",
    "Humanoid-v5": "planner",
    "HumanoidStandup-v5": "planner",
    "InvertedDoublePendulum-v5": "planner",
    "InvertedPendulum-v5": "planner",
    "Pusher-v5": "planner",
    "Reacher-v5": "planner",
    "Swimmer-v5": "planner",
    "Walker2d-v5": "planner",
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
    if env_id.startswith("MiniGrid-"):
        module = module or "minigrid"  # Gymnasium does not find these ids by itself
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
    name: str,
    render_mode: str | None = None,
    max_steps: int | None = None,
    wrappers: Sequence[Mapping[str, Any]] = (),
    **options: Any,
) -> gymnasium.Env:
    """gymnasium.make without its checking wrapper, always with a step limit; missions in info.

    wrappers: Gymnasium's own to put around it, as `wrapped` takes them.
    """
    spec = _spec(name)
    assert spec is not None
    if render_mode is not None:
        options["render_mode"] = render_mode  # some environments do not know the argument at all
        if "mujoco" in str(spec.entry_point):
            use_offscreen_gl()
    try:
        env = gymnasium.make(
            name.rpartition(":")[2],
            max_episode_steps=max_steps or spec.max_episode_steps or _NO_LIMIT_STEPS,
            disable_env_checker=True,
            **options,
        )
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        missing = [link.name for link in causes(error) if isinstance(link, ModuleNotFoundError)]
        if not missing:
            raise GeneralistError(f"gym/{name} cannot be made: {error}") from error
        raise MissingPackageError(str(missing[-1]), f"gym/{name}") from error
    env = wrapped(env, wrappers)
    return MissionAsInstruction(env) if _has_mission(env.observation_space) else env


def _has_mission(space: spaces.Space) -> bool:
    """True for minigrid's observations: their mission is a sentence of no bounded length."""
    if not isinstance(space, spaces.Dict) or "mission" not in space.spaces:
        return False
    try:
        from minigrid.core.mission import MissionSpace
    except ImportError:
        return False
    return isinstance(space["mission"], MissionSpace)


class MissionAsInstruction(gymnasium.Wrapper):
    """The mission is no part of the observation but announced once, in `info["instruction"]`."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, spaces.Dict)
        fields = env.observation_space.spaces.items()
        self.observation_space = spaces.Dict({k: v for k, v in fields if k != "mission"})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A new mission."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._seen(observation), {**info, "instruction": observation["mission"]}

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """A step of the environment within."""
        observation, *outcome = self.env.step(action)
        return self._seen(observation), *outcome

    @staticmethod
    def _seen(observation: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in observation.items() if key != "mission"}
