"""Simulators whose state can be saved and restored: one interface, one adapter a kind.

A planner tries out actions in the very environment it is asked about and then puts it back. A
saved state is everything that a step reads or changes but for the random numbers that are still to
come: those a planner draws from a stream of its own. So it foresees what will happen where nothing
is left to chance, and no more than that; and an episode is the same, bit for bit, with planning
between its steps as without.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import gymnasium
import numpy as np

from generalist.errors import UsageError

# A wrapper that stacks or delays observations has a deque of them, none of which ever changes.
_PLAIN = (bool, int, float, str, tuple, type(None), np.ndarray, np.generic, deque)
# Where the emulator's saved state lacks what the next step depends on (seen in ale-py 0.12.1).
_NOT_RESTORED = {"tic_tac_toe_3d"}


class Simulator(Protocol):
    """An environment in the middle of an episode, to be moved in time."""

    step_seconds: float | None  # of simulated time; None where time has no unit

    def steps(self) -> int:
        """Steps since the reset."""

    def save(self) -> Any:
        """The present state, which later steps do not change."""

    def restore(self, state: Any) -> None:
        """Go back to a saved state of the same episode."""

    def step(self, action: Any) -> tuple[float, bool]:
        """The reward of a step, and whether the episode ended with it."""

    def look(self, action: Any) -> tuple[Any, float, bool]:
        """As `step`, with what is observed after it before them."""

    def features(self) -> np.ndarray:
        """Numbers that describe the present state: (n,), of any dtype."""

    def exchange_random(self, random: Any) -> Any:
        """Draw what is random in a step from `random` from now on; returns what it was drawn from.

        random: a numpy Generator, or what an earlier call has returned.
        """


@contextmanager
def borrowed(simulator: Simulator, random: np.random.Generator) -> Iterator[Any]:
    """The present state, which is restored at the end whatever happens in between.

    random: what is random in steps is drawn from it in the meantime; the environment's own random
        numbers stay unknown and untouched.
    """
    state = simulator.save()
    own = simulator.exchange_random(random)
    try:
        yield state
    finally:
        simulator.restore(state)
        simulator.exchange_random(own)


def simulator_of(env: gymnasium.Env) -> Simulator:
    """The simulator of an environment; UsageError where there is no way to save its state."""
    base = env.unwrapped
    module = type(base).__module__
    if module == "generalist.envs.dmc":
        return DmcSimulator(base)
    if module == "generalist.envs.atari" and base.rom_id not in _NOT_RESTORED:
        return AleSimulator(base)
    if module.startswith(("gymnasium.envs.classic_control.", "gymnasium.envs.mujoco.")):
        return GymSimulator(env)
    raise UsageError(
        f"A planner saves and restores the simulator's state, and cannot do so for {env}: it can "
        "for dm_control, Gymnasium's classic control and MuJoCo, and all Atari games but "
        "TicTacToe3D."
    )


class DmcSimulator:
    """A task of the Control Suite, stepped without the cost of its observations."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._suite = env._env  # dm_control's own environment: physics, task and step counter
        self._physics, self._task = env.physics, self._suite.task
        self._low, self._high = env.action_space.low, env.action_space.high
        self.step_seconds: float | None = self._suite.control_timestep()

    def steps(self) -> int:
        """As `Simulator.steps`."""
        return self._env._steps or 0

    def save(self) -> Any:
        """As `Simulator.save`."""
        task = {name: value for name, value in vars(self._task).items() if name != "_random"}
        counters = (self._env._steps, self._suite._step_count, self._suite._reset_next_step)
        return copy.copy(self._physics.data.ptr), task, counters

    def restore(self, state: Any) -> None:
        """As `Simulator.restore`."""
        data, task, counters = state
        _copy_data(self._physics.data.ptr, self._physics.model.ptr, data)
        vars(self._task).update(task)
        self._env._steps, self._suite._step_count, self._suite._reset_next_step = counters

    def step(self, action: Any) -> tuple[float, bool]:
        """As the Protocol says; actions that make the physics diverge are worth -inf."""
        from dm_control.rl.control import PhysicsError

        physics, task, suite = self._physics, self._task, self._suite
        control = np.asarray(action, np.float64)
        task.before_step(np.clip(control, self._low, self._high), physics)
        try:
            physics.step(suite._n_sub_steps)
        except PhysicsError:
            return -np.inf, True
        task.after_step(physics)
        reward = float(task.get_reward(physics))
        suite._step_count += 1
        self._env._steps += 1
        over = (
            self._env._steps >= self._env._max_steps
            or suite._step_count >= suite._step_limit
            or task.get_termination(physics) is not None
        )
        return reward, over

    def look(self, action: Any) -> tuple[Any, float, bool]:
        """As the Protocol says; an action that makes the physics diverge earns nothing."""
        reward, over = self.step(action)
        observation = self._env.observation_of(self._task.get_observation(self._physics))
        return observation, 0.0 if reward == -np.inf else reward, over

    def exchange_random(self, random: Any) -> Any:
        """As the Protocol says; a task's kind of generator is made to share the numbers."""
        own = self._task._random
        if isinstance(random, np.random.Generator):
            random = type(own)(random.bit_generator)
        self._task._random = random
        return own

    def features(self) -> np.ndarray:
        """Positions and velocities."""
        return np.concatenate([self._physics.data.qpos, self._physics.data.qvel])


class AleSimulator:
    """An Atari game, stepped without the cost of its frames."""

    step_seconds: float | None = 4 / 60

    def __init__(self, env: Any) -> None:
        self._env = env
        self._random: np.random.Generator | None = None  # of sticks; None: the episode's own
        self._screens = env.new_screens()

    def steps(self) -> int:
        """As `Simulator.steps`."""
        return self._env.steps

    def save(self) -> Any:
        """As `Simulator.save`."""
        return self._env.save()

    def restore(self, state: Any) -> None:
        """As `Simulator.restore`."""
        self._env.restore(state)

    def step(self, action: Any) -> tuple[float, bool]:
        """As `Simulator.step`."""
        return self._advance(action, None)

    def look(self, action: Any) -> tuple[Any, float, bool]:
        """As `Simulator.look`."""
        reward, over = self._advance(action, self._screens)
        return self._env.observation_of(self._screens), reward, over

    def _advance(self, action: Any, screens: np.ndarray | None) -> tuple[float, bool]:
        sticks = None if self._random is None else self._env.draw_sticks(self._random, 1)
        reward, terminated, truncated = self._env.advance(int(action), screens, sticks)
        return reward, terminated or truncated

    def exchange_random(self, random: Any) -> Any:
        """As `Simulator.exchange_random`."""
        own, self._random = self._random, random
        return own

    def features(self) -> np.ndarray:
        """The console's memory: (128,) uint8."""
        return self._env.ram()

    def lives(self) -> int:
        """Lives left; 0 in games that know none."""
        return self._env.ale.lives()

    def last_action(self) -> int:
        """The action of the last step."""
        return self._env.last_action


class GymSimulator:
    """One of Gymnasium's own environments whose state is plain attributes, or MuJoCo's data too.

    It is stepped with all its wrappers, whose counters are state as well.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        self._env = env
        self._layers: list[Any] = [env]
        while isinstance(self._layers[-1], gymnasium.Wrapper):
            self._layers.append(self._layers[-1].env)
        self._base: Any = env.unwrapped
        self._has_data = hasattr(self._base, "data")
        # Gymnasium calls it dt or tau; the mountain car's hour has no unit.
        seconds = getattr(self._base, "dt", getattr(self._base, "tau", None))
        self.step_seconds: float | None = seconds

    def steps(self) -> int:
        """As `Simulator.steps`."""
        return self._env.get_wrapper_attr("_elapsed_steps") or 0

    def save(self) -> Any:
        """As `Simulator.save`."""
        plain = [
            {name: copy.copy(value) for name, value in vars(layer).items() if _is_plain(value)}
            for layer in self._layers
        ]
        data = copy.copy(self._base.data) if self._has_data else None
        return plain, data

    def restore(self, state: Any) -> None:
        """As `Simulator.restore`."""
        plain, data = state
        for layer, values in zip(self._layers, plain, strict=True):
            vars(layer).update({name: copy.copy(value) for name, value in values.items()})
        if data is not None:
            _copy_data(self._base.data, self._base.model, data)

    def exchange_random(self, random: Any) -> Any:
        """As `Simulator.exchange_random`."""
        own, self._base._np_random = self._base._np_random, random
        return own

    def step(self, action: Any) -> tuple[float, bool]:
        """As `Simulator.step`."""
        _, reward, over = self.look(action)
        return reward, over

    def look(self, action: Any) -> tuple[Any, float, bool]:
        """As `Simulator.look`."""
        observation, reward, terminated, truncated, _ = self._env.step(action)
        return observation, float(reward), bool(terminated or truncated)

    def features(self) -> np.ndarray:
        """Positions and velocities."""
        if self._has_data:
            return np.concatenate([self._base.data.qpos, self._base.data.qvel])
        return np.array(self._base.state, np.float64)


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN)


def _copy_data(target: Any, model: Any, source: Any) -> None:
    """MuJoCo's whole state, warm starts of the solver and derived quantities included."""
    import mujoco

    mujoco.mj_copyData(target, model, source)
