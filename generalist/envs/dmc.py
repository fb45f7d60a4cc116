"""DeepMind Control Suite: every task of it as `dmc/DOMAIN-TASK`, from low-dimensional state.

Observations are the suite's own named vectors, and rewards its own, 0 to 1 a step. An episode is
1000 steps of the suite's control interval. `dm_control` is imported when a task is first made.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs.registry import Task
from generalist.envs.rendering import NO_GL_MESSAGE, OffscreenCamera, use_offscreen_gl
from generalist.errors import GeneralistError, MissingPackageError, UsageError

MAX_STEPS = 1_000
_NO_BOUND = 1e10  # what MuJoCo writes where an actuator has no limit
MODEL_SEED = 0  # for the domains that draw their model, not only their start, at random

REGISTERED = {
    "acrobot-swingup": "swing up a two-link arm that is driven at its elbow",
    "acrobot-swingup_sparse": "the same, rewarded only near the top",
    "ball_in_cup-catch": "swing a ball on a string into the cup it hangs from",
    "cartpole-balance": "keep a pole upright mid-track with small pushes",
    "cartpole-balance_sparse": "the same, rewarded only near upright and mid-track",
    "cartpole-swingup": "swing a hanging pole up with its cart, and balance it mid-track",
    "cartpole-swingup_sparse": "the same, rewarded only near upright and mid-track",
    "cartpole-two_poles": "swing up two poles, one on the other",
    "cartpole-three_poles": "swing up three poles, one on the other",
    "cheetah-run": "run with a two-legged body in a plane",
    "dog-stand": "stand with a dog's body of 38 actuators",
    "dog-walk": "walk with a dog's body",
    "dog-trot": "trot with a dog's body",
    "dog-run": "run with a dog's body",
    "dog-fetch": "fetch a ball with a dog's body",
    "finger-spin": "spin a hinged body with a two-link finger",
    "finger-turn_easy": "turn a hinged body with a finger until its tip is in a large target",
    "finger-turn_hard": "turn a hinged body with a finger until its tip is in a small target",
    "fish-upright": "keep a swimming fish upright",
    "fish-swim": "swim to a target",
    "hopper-stand": "stand up on one leg, and stay",
    "hopper-hop": "hop forward on one leg",
    "humanoid-stand": "stand up on two legs, and stay",
    "humanoid-walk": "walk on two legs",
    "humanoid-run": "run on two legs",
    "humanoid-run_pure_state": "run on two legs, seeing joint positions and velocities only",
    "humanoid_CMU-stand": "stand with a body of 56 joints",
    "humanoid_CMU-walk": "walk with a body of 56 joints",
    "humanoid_CMU-run": "run with a body of 56 joints",
    "lqr-lqr_2_1": "bring two masses on springs to rest, pushing one of them",
    "lqr-lqr_6_2": "bring six masses on springs to rest, pushing two of them",
    "manipulator-bring_ball": "bring a ball to a target with a gripper",
    "manipulator-bring_peg": "bring a peg to a target pose with a gripper",
    "manipulator-insert_ball": "put a ball into a cup with a gripper",
    "manipulator-insert_peg": "put a peg into a slot with a gripper",
    "pendulum-swingup": "swing a pendulum up with too little torque, and hold it there",
    "point_mass-easy": "push a point to the middle of a plane along its axes",
    "point_mass-hard": "the same along two directions drawn anew in each episode",
    "quadruped-walk": "walk on four legs",
    "quadruped-run": "run on four legs",
    "quadruped-escape": "climb out of a bowl of rough terrain on four legs",
    "quadruped-fetch": "bring a ball to a target on four legs",
    "reacher-easy": "bring the tip of a two-link arm to a large target",
    "reacher-hard": "bring the tip of a two-link arm to a small target",
    "stacker-stack_2": "stack two boxes with a gripper",
    "stacker-stack_4": "stack four boxes with a gripper",
    "swimmer-swimmer6": "swim to a target with a body of six links",
    "swimmer-swimmer15": "swim to a target with a body of fifteen links",
    "walker-stand": "stand on two legs in a plane",
    "walker-walk": "walk on two legs in a plane",
    "walker-run": "run on two legs in a plane",
}
_EXPERTS = {  # of the others it is the planner
    "cartpole-swingup": "swing-up",
    "cartpole-balance": "swing-up",
    "reacher-easy": "inverse-kinematics",
    "reacher-hard": "inverse-kinematics",
    "pendulum-swingup": "swing-up",
}


@functools.cache
def _suite() -> Any:
    """dm_control.suite, imported so that a process that only steps needs no OpenGL."""
    chosen = os.environ.get("MUJOCO_GL")
    # dm_control looks for an OpenGL backend as it is imported. Ours to render with is
    # OffscreenCamera, so it is told to look for none unless the user chose one.
    if not chosen:
        os.environ["MUJOCO_GL"] = "disabled"
    try:
        from dm_control import suite
    except ModuleNotFoundError as error:
        raise MissingPackageError("dm_control", "dmc/") from error
    except Exception as error:  # a chosen backend that does not load fails in many ways
        raise GeneralistError(
            f"dm_control does not load with MUJOCO_GL={chosen or ''!r}: {error} {NO_GL_MESSAGE}"
        ) from error
    finally:
        if chosen is None:
            os.environ.pop("MUJOCO_GL", None)
        else:
            os.environ["MUJOCO_GL"] = chosen
    return suite


def names() -> list[str]:
    """Every task of the suite, as DOMAIN-TASK."""
    return sorted(f"{domain}-{task}" for domain, task in _suite().ALL_TASKS)


def find(name: str) -> Task | None:
    """The task DOMAIN-TASK; None for an unknown one."""
    # The registered ones are known without the second or two that importing dm_control takes.
    if name not in REGISTERED and name not in names():
        return None
    domain, _, task = name.partition("-")
    return Task(
        name=f"dmc/{name}",
        family="dmc",
        make=functools.partial(DmcEnv, domain, task),
        step_limit=MAX_STEPS,
        description=REGISTERED.get(name, f"the Control Suite's {domain}, {task}"),
        default_expert=_EXPERTS.get(name, "planner"),
    )


class DmcEnv(gymnasium.Env):
    """One task of the Control Suite.

    Observations: Dict of float32 Boxes, one for each of the suite's, a scalar as shape (1,).
    Actions: a float32 Box with the actuators' bounds; what lies outside is clipped.
    Rewards: the suite's own, raw.
    An episode is truncated after `max_steps` steps, and terminated where the suite ends it with
    discount 0. The model is compiled once; a reset only draws a new start.

    Args:
        domain, task: As the suite names them.
        render_mode: `rgb_array` or None.
        max_steps: Steps after which the episode is truncated.
        camera: Index of the scene's camera for `render`.
        height, width: Of rendered frames, in pixels.

    Raises:
        MissingPackageError: dm_control is missing.
        GeneralistError: dm_control does not load, or rendering is wanted without any OpenGL.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}

    def __init__(
        self,
        domain: str,
        task: str,
        *,
        render_mode: str | None = None,
        max_steps: int | None = None,
        camera: int = 0,
        height: int = 240,
        width: int = 320,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UsageError(
                f"dmc/{domain}-{task} has the render mode 'rgb_array'; got {render_mode!r}."
            )
        if render_mode is not None:
            use_offscreen_gl()  # better an error now than at the end of the first episode
        self.render_mode = render_mode
        self._env = _suite().load(domain, task, task_kwargs={"random": MODEL_SEED})
        # quadruped-escape asks dm_control for an OpenGL context at every reset, to show its new
        # terrain. It has none here and goes on without; OffscreenCamera draws from the model.
        self._env.physics._make_rendering_contexts = lambda: None
        self._max_steps = max_steps or MAX_STEPS
        self._steps: int | None = None  # None until reset, and after an episode's end
        self._name = f"dmc/{domain}-{task}"
        self._view = {"camera": camera, "height": height, "width": width}
        self._camera: OffscreenCamera | None = None
        self.metadata = {
            **self.metadata,
            "render_fps": max(1, round(1.0 / self._env.control_timestep())),
        }
        self.observation_space = spaces.Dict(
            {name: _box(spec) for name, spec in self._env.observation_spec().items()}
        )
        self.action_space = _box(self._env.action_spec())

    @property
    def physics(self) -> Any:
        """The simulator's state (dm_control.mujoco.Physics); experts may read it."""
        return self._env.physics

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Draw a start; the same `seed` draws the same one."""
        super().reset(seed=seed)
        self._env.task.random.seed(int(self.np_random.integers(2**32)))
        self._steps = 0
        return self.observation_of(self._env.reset().observation), {}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Hold one action for the suite's control interval."""
        if self._steps is None:
            raise GeneralistError(f"{self._name}: call reset() before step(); no episode is on.")
        control = np.asarray(action, np.float64)
        if control.shape != self.action_space.shape or not np.isfinite(control).all():
            raise UsageError(
                f"{self._name} takes actions of shape {self.action_space.shape}, all finite; "
                f"got {action!r}."
            )
        timestep = self._env.step(np.clip(control, self.action_space.low, self.action_space.high))
        self._steps += 1
        ended = timestep.last()
        terminated = bool(ended and timestep.discount == 0.0)
        truncated = not terminated and (ended or self._steps >= self._max_steps)
        if terminated or truncated:
            self._steps = None
        seen = self.observation_of(timestep.observation)
        return seen, float(timestep.reward), terminated, truncated, {}

    def observation_of(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What the agent sees of the suite's own observation."""
        return {
            name: np.array(values[name], np.float32, ndmin=1)
            for name in self.observation_space.spaces
        }

    def render(self) -> np.ndarray | None:
        """The scene: (height, width, 3) uint8."""
        if self.render_mode is None:
            return None
        if self._camera is None:
            self._camera = OffscreenCamera(self.physics.model.ptr, **self._view)
        return self._camera.frame(self.physics.data.ptr)

    def close(self) -> None:
        """Free the camera and the simulation."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None
        self._env.close()


def _box(spec: Any) -> spaces.Box:
    """The float32 Box of a dm_env array specification."""
    shape = spec.shape or (1,)
    low = np.array(np.broadcast_to(getattr(spec, "minimum", -np.inf), shape), np.float32)
    high = np.array(np.broadcast_to(getattr(spec, "maximum", np.inf), shape), np.float32)
    low[low <= -_NO_BOUND] = -np.inf
    high[high >= _NO_BOUND] = np.inf
    return spaces.Box(low, high, shape, np.float32)
