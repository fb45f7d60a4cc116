"""Meta-World: fifty things to do with a robot's arm and a gripper, from states.

Yu et al. 2019 (arXiv:1910.10897), the tasks that the package calls v3: `metaworld/push` is its
`push-v3`. A seed draws where things stand and where they are to go.

The agent is told the goal twice. The header says it in words, once an episode, as any task's
instruction. The observation carries it as in Meta-World's multi-task setting (MT), whose scripted
policies read it there. That costs three tokens a step. In return the goal's ids are of the same
bins as those of the hand and the objects. A model learns easily from these how far they lie apart,
and hardly from the digits of a text.

An episode ends with success, as Meta-World's own evaluation ends it. So success at any step, the
score by convention, is success. With `to_the_end` the episode goes on to 500 steps.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs.registry import Task
from generalist.envs.rendering import OffscreenCamera, use_offscreen_gl
from generalist.errors import GeneralistError, MissingPackageError, UsageError
from generalist.streams import Stream, random_stream

REGISTERED = {
    "assembly": "pick up the ring and put it over the peg",
    "basketball": "put the ball into the basket",
    "bin-picking": "move the cube from one bin to the other",
    "box-close": "put the lid on the box",
    "button-press": "press the button on the front",
    "button-press-topdown": "press the button from above",
    "button-press-topdown-wall": "press the button behind the wall from above",
    "button-press-wall": "reach over the wall and press the button",
    "coffee-button": "press the button of the coffee machine",
    "coffee-pull": "pull the mug away from the coffee machine",
    "coffee-push": "push the mug under the coffee machine",
    "dial-turn": "turn the dial by half a turn",
    "disassemble": "lift the ring off the peg",
    "door-close": "close the door",
    "door-lock": "turn the lock of the door to lock it",
    "door-open": "open the door by its handle",
    "door-unlock": "turn the lock of the door to unlock it",
    "drawer-close": "push the drawer shut",
    "drawer-open": "pull the drawer open",
    "faucet-close": "turn the faucet clockwise",
    "faucet-open": "turn the faucet counterclockwise",
    "hammer": "drive the nail in with the hammer",
    "hand-insert": "put the gripper into the hole",
    "handle-press": "press the handle down",
    "handle-press-side": "press the handle down from the side",
    "handle-pull": "pull the handle up",
    "handle-pull-side": "pull the handle up from the side",
    "lever-pull": "pull the lever up",
    "peg-insert-side": "put the peg into the hole in the side of the block",
    "peg-unplug-side": "pull the peg out of the side of the block",
    "pick-out-of-hole": "lift the puck out of the hole",
    "pick-place": "pick up the puck and hold it at the goal",
    "pick-place-wall": "lift the puck over the wall and hold it at the goal",
    "plate-slide": "slide the plate into the cabinet",
    "plate-slide-back": "slide the plate back out of the cabinet",
    "plate-slide-back-side": "slide the plate out of the cabinet sideways",
    "plate-slide-side": "slide the plate into the cabinet sideways",
    "push": "push the puck to the goal",
    "push-back": "push the block back to the goal",
    "push-wall": "push the puck around the wall to the goal",
    "reach": "move the gripper to the goal",
    "reach-wall": "move the gripper around the wall to the goal",
    "shelf-place": "put the block on the shelf",
    "soccer": "kick the ball into the net",
    "stick-pull": "pull the box along with the stick through its handle",
    "stick-push": "push the box along with the stick",
    "sweep": "sweep the block off the table",
    "sweep-into": "sweep the block into the hole",
    "window-close": "slide the window shut",
    "window-open": "slide the window open",
}
MAX_STEPS = 500
VERSION = "-v3"
_PER_OBJECT = 7  # position and quaternion
_START_AND_GOAL = 6  # numbers that are drawn for tasks that draw both
_MOST_DRAWS = 1_000
# Positions are clipped to a cube of 1.2 m around the table, the same for hand, objects and goal, so
# that equal ids are equal places. A vocabulary of 1,024 bins then tells 1.2 mm apart.
_LOW, _HIGH = (-0.6, 0.0, -0.2), (0.6, 1.2, 1.0)
_CAMERA = "corner2"  # hangs upside down in the package's scenes


def names() -> list[str]:
    """The fifty tasks."""
    return list(REGISTERED)


def find(name: str) -> Task | None:
    """The task of that name; None for an unknown one."""
    if name not in REGISTERED:
        return None
    return Task(
        name=f"metaworld/{name}",
        family="metaworld",
        make=functools.partial(MetaWorldEnv, name),
        step_limit=MAX_STEPS,
        description=REGISTERED[name],
        metric="success",
        default_expert="scripted",
    )


@functools.cache
def _classes() -> dict[str, Any]:
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except ImportError as error:
        raise MissingPackageError("metaworld", "metaworld/") from error
    return ALL_V3_ENVIRONMENTS


class MetaWorldEnv(gymnasium.Env):
    """One task of Meta-World; `info["success"]` says at each step whether it is solved now.

    Observations: Dict of float32 Boxes: hand (3,) in metres, gripper (1,) 1.0 for open,
        objects (7,) or (14,) position and quaternion of each, goal (3,) in metres.
        With `flat`, the package's own (39,) vector: hand, gripper and objects padded to 18 numbers,
        the same as they were one step ago, the goal. The Dict takes less than half of the tokens,
        and the sequence holds the step before anyway.
    Actions: float32 Box (4,) in [-1, 1]: the hand's motion, 1 cm a unit, and the gripper's effort.
    Rewards: the package's own (its v2 formulas, 0 to 10 a step), raw.

    Args:
        name: The task, without the package's version.
        render_mode: `rgb_array` or None.
        max_steps: Steps after which the episode is truncated, 500 at most.
        to_the_end: Go on after success.
        flat: Observe the package's own vector.
        goals: Draw the goal from so many, and the start as ever. Default: from all places.
        goal_seen: False: the observation does not say the goal, as in Meta-World's meta-learning
            setting (ML). The instruction still does.
        height, width: Of rendered frames, in pixels.

    Raises:
        MissingPackageError: Meta-World is missing.
        UsageError: There is no such render mode, `max_steps` is out of range, or the task's goal
            does not move apart from its start and so cannot be one of `goals`.
        GeneralistError: Rendering is wanted without any OpenGL.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}

    def __init__(
        self,
        name: str,
        *,
        render_mode: str | None = None,
        max_steps: int | None = None,
        to_the_end: bool = False,
        flat: bool = False,
        goals: int | None = None,
        goal_seen: bool = True,
        height: int = 240,
        width: int = 320,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UsageError(
                f"metaworld/{name} has the render mode 'rgb_array'; got {render_mode!r}."
            )
        if max_steps is not None and not 1 <= max_steps <= MAX_STEPS:
            raise UsageError(
                f"metaworld/{name}: max_steps is from 1 to {MAX_STEPS}; got {max_steps}."
            )
        if render_mode is not None:
            use_offscreen_gl()  # better an error now than at the end of the first episode
        self.render_mode = render_mode
        self.name = name
        self._max_steps = max_steps or MAX_STEPS
        self._to_the_end = to_the_end
        self._flat, self._goal_seen = flat, goal_seen
        self._view = {"height": height, "width": width}
        self._camera: OffscreenCamera | None = None
        self._steps: int | None = None  # None until reset, and after an episode's end
        self._vector = np.zeros(0)
        self._sawyer = _make(name)
        self._objects = len(self._sawyer._get_pos_objects()) // 3 * _PER_OBJECT
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.observation_space = (
            _flat_space() if flat else _dict_space(self._objects, goal=goal_seen)
        )
        self._goals = goals
        self._draws = 0  # of this episode's start
        self._goal: np.ndarray | None = None  # (3,) of this episode, where it is one of `goals`
        if goals is not None:
            self._require_goals(goals)
            self._sawyer._get_state_rand_vec = self._start_with_goal

    def _require_goals(self, goals: int) -> None:
        if goals < 1 or self._sawyer._random_reset_space.low.size < _START_AND_GOAL:
            raise UsageError(
                f"metaworld/{self.name}: goals={goals} takes at least 1, and a task whose goal is "
                "drawn apart from its start, such as metaworld/reach."
            )

    @property
    def vector(self) -> np.ndarray:
        """(39,) float64, the package's observation of now, neither clipped nor rounded."""
        return self._vector.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Draw a start and a goal, which `info["instruction"]` says; a seed draws the same ones."""
        super().reset(seed=seed)
        self._sawyer.seed(int(self.np_random.integers(2**31)))
        if self._goals is not None:
            places = self._sawyer._random_reset_space
            rng = random_stream(int(self.np_random.integers(self._goals)), Stream.GOALS)
            self._goal = rng.uniform(places.low[3:], places.high[3:])
            self._draws = 0
        self._vector, _ = self._sawyer.reset()
        self._steps = 0
        x, y, z = (round(1000 * metres) for metres in self._vector[-3:])
        instruction = f"{REGISTERED[self.name]}; goal at {x}, {y}, {z} mm"
        return self._observation(), {"instruction": instruction}

    def _start_with_goal(self) -> np.ndarray:
        """(6,) a start and a goal, in place of the package's own draw of both.

        The package draws again while they lie too near to each other.
        """
        self._draws += 1
        if self._draws > _MOST_DRAWS:
            raise GeneralistError(
                f"metaworld/{self.name}: no start is far enough from one of the goals; try another "
                "number of goals."
            )
        drawn = type(self._sawyer)._get_state_rand_vec(self._sawyer)
        drawn[3:] = self._goal
        return drawn

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the hand for 12.5 ms of simulated time."""
        if self._steps is None:
            raise GeneralistError(
                f"metaworld/{self.name}: call reset() before step(); no episode is on."
            )
        effort = np.asarray(action, np.float32)
        if effort.shape != (4,) or not np.isfinite(effort).all():
            raise UsageError(
                f"metaworld/{self.name} takes actions of shape (4,), all finite; got {action!r}."
            )
        self._vector, reward, _, _, info = self._sawyer.step(np.clip(effort, -1.0, 1.0))
        self._steps += 1
        success = bool(info["success"])
        terminated = success and not self._to_the_end
        truncated = not terminated and self._steps >= self._max_steps
        if terminated or truncated:
            self._steps = None
        return self._observation(), float(reward), terminated, truncated, {"success": success}

    def _observation(self) -> Any:
        vector = self._vector
        if self._flat:
            flat = vector.astype(np.float32)
            flat[-3:] *= self._goal_seen
            return flat
        seen = {
            "hand": vector[:3],
            "gripper": vector[3:4],
            "objects": vector[4 : 4 + self._objects],
            "goal": vector[-3:],
        }
        fields = self.observation_space.spaces
        return {
            key: np.clip(seen[key], field.low, field.high).astype(np.float32)
            for key, field in fields.items()
        }

    def render(self) -> np.ndarray | None:
        """The table from a corner: (height, width, 3) uint8."""
        if self.render_mode is None:
            return None
        if self._camera is None:
            model = self._sawyer.model
            camera = model.camera(_CAMERA).id
            self._camera = OffscreenCamera(model, camera=camera, **self._view)
        return self._camera.frame(self._sawyer.data)[::-1, ::-1]

    def close(self) -> None:
        """Free the camera."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None


def _make(name: str) -> Any:
    """The package's environment of a task, drawing its goal from its own seed, and telling it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sawyer = _classes()[name + VERSION]()
    # What its `set_task` does for one of 50 pickled goals, done for goals without end.
    sawyer._set_task_called = True
    sawyer._freeze_rand_vec = False
    sawyer.seeded_rand_vec = True
    sawyer._partially_observable = False
    del sawyer.sawyer_observation_space  # a cached property, of the hidden goal
    return sawyer


def _dict_space(objects: int, *, goal: bool) -> spaces.Dict:
    place, turn = (_LOW, _HIGH), ((-1.0,) * 4, (1.0,) * 4)
    count = objects // _PER_OBJECT
    bounds = {
        "hand": place,
        "gripper": ((0.0,), (1.0,)),
        "objects": tuple((place[i] + turn[i]) * count for i in range(2)),
    }
    if goal:
        bounds["goal"] = place
    return spaces.Dict(
        {
            key: spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
            for key, (low, high) in bounds.items()
        }
    )


def _flat_space() -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (39,), np.float32)
