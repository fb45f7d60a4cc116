"""Gymnasium: any installed id, `gym/ID`; with a module to import first, `gym/package.module:ID`.

An id may have a namespace, as in `gym/ALE/Pong-v5`. Packages may register their environments when
they are imported, or through an entry point of the group `gymnasium.envs`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs import registration
from gymnasium.envs.registration import EnvSpec, load_env_creator

from generalist.envs.options import defaults_of
from generalist.envs.registry import Task
from generalist.envs.rendering import use_offscreen_gl
from generalist.envs.wrapping import wrapped
from generalist.errors import GeneralistError, MissingPackageError, causes, in_words

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
_GROUP = "gymnasium.envs"  # of the entry points that register environments
_NO_NAMESPACE = ("__root__", "__internal__")  # names of entry points whose ids have no namespace
_MODULES = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid", "ALE/": "ale_py"}
"""Modules that register the ids that begin so, and have no entry point that says it."""
_NO_LIMIT_STEPS = 10_000  # where the id itself sets no limit, so that every episode ends


def names() -> list[str]:
    """Every id that can be made, those of installed packages' entry points among them."""
    for plugin in entry_points(group=_GROUP):
        try:
            _load(plugin)
        except GeneralistError as error:
            warnings.warn(str(error), stacklevel=2)
    return [name for name, spec in gymnasium.registry.items() if spec.entry_point is not None]


def find(name: str) -> Task | None:
    """The task for an installed id; None for an unknown one.

    No environment is made, so whether an unregistered one shows frames is not known.

    Raises:
        GeneralistError: The module before the id, or the package of an entry point that should
            register it, cannot be imported.
    """
    spec = _spec(name)
    if spec is None or spec.entry_point is None:  # without: it makes vectors only
        return None
    return Task(
        name=f"gym/{name}",
        family="gym",
        make=functools.partial(_make, name),
        step_limit=spec.max_episode_steps or _NO_LIMIT_STEPS,
        description=REGISTERED.get(name, f"the Gymnasium environment {name}"),
        frames=False if name in REGISTERED else None,
        default_expert=_EXPERTS.get(name, ""),
    )


def defaults(name: str) -> dict[str, Any]:
    """The arguments that an id's environment is made with where none are given."""
    spec = _spec(name)
    assert spec is not None
    entry = spec.entry_point
    try:
        found = defaults_of(load_env_creator(entry) if isinstance(entry, str) else entry)
    except (ImportError, TypeError, ValueError):  # one that cannot be looked into
        found = {}
    # `max_steps` is the limit that the id sets around its environment.
    return {key: value for key, value in {**found, **spec.kwargs}.items() if key != "max_steps"}


def _spec(name: str) -> EnvSpec | None:
    """What Gymnasium's registry says of an id, once whoever registers it was asked to."""
    module, _, env_id = name.rpartition(":")
    module = module or next((m for start, m in _MODULES.items() if env_id.startswith(start)), "")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # a module of the user's own may fail in any way
            raise GeneralistError(
                f"gym/{name} asks for the module {module!r}, which cannot be imported: "
                f"{in_words(error)}."
            ) from error
    if env_id not in gymnasium.registry:
        _ask_plugins(module, env_id)
    return gymnasium.registry.get(env_id)


def _ask_plugins(module: str, env_id: str) -> None:
    """Load the entry points that may register an id: of the module's package, or its namespace.

    An id without a namespace may be registered by those that have none of their own. These do not
    belong to the id alone, so that one of them is broken says nothing of it.
    """
    package, namespace = module.partition(".")[0], env_id.rpartition("/")[0]
    for plugin in entry_points(group=_GROUP):
        if plugin.module.partition(".")[0] == package or plugin.name == (namespace or None):
            _load(plugin)
        elif not module and plugin.name in _NO_NAMESPACE:
            with contextlib.suppress(GeneralistError):
                _load(plugin)


@functools.cache
def _load(plugin: EntryPoint) -> None:
    """Let an entry point register its environments, in the namespace that it is named for."""
    own = plugin.name not in _NO_NAMESPACE
    try:
        with registration.namespace(plugin.name) if own else contextlib.nullcontext():
            register = plugin.load()
            if callable(register):
                register()
    except Exception as error:  # whatever a package may raise
        registration.current_namespace = None  # which Gymnasium leaves as it is after an error
        raise GeneralistError(
            f"The entry point {plugin.name} = {plugin.value} of an installed package registers no "
            f"environments: {type(error).__name__}: {error}."
        ) from error


def _make(
    name: str,
    *,
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
    except Exception as error:  # whatever an environment of others may raise
        if "unexpected keyword argument" in str(error):
            raise  # a wrong option, which `make` explains
        missing = [link.name for link in causes(error) if isinstance(link, ModuleNotFoundError)]
        if missing:
            raise MissingPackageError(str(missing[-1]), f"gym/{name}") from error
        raise GeneralistError(f"gym/{name} cannot be made: {in_words(error)}.") from error
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
