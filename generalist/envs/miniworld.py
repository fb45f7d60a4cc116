"""MiniWorld: rooms in 3D, told in words, played with keys and a mouse; `miniworld/GoTo`.

Chevalier-Boisvert et al. 2023 (arXiv:2306.13831) made the simulator; the tasks are this project's.
A seed draws the room, its things, and the instruction. Frames are 84x84 RGB, six a second. The
world is drawn without a display. Success is judged by the simulator's state (`missions.py`).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs.controls import CONTROLS, control_space, held_keys
from generalist.envs.miniworld_room import FRAME_PIXELS, WALK, Room, package
from generalist.envs.miniworld_skills import FROM_WALLS, PAIRS, SKILLS, Palette, Pairs, Plan
from generalist.envs.mission_words import WORDS, Words, say
from generalist.envs.missions import Mission
from generalist.envs.registry import Task
from generalist.envs.scene import Thing
from generalist.errors import GeneralistError, UsageError

FRAMES_PER_SECOND = 6
_ROOM = (6.0, 8.0)  # metres a side, at least and at most
_APART, _FROM_AGENT = 1.9, 1.7  # metres between things, and from the agent to each
_TRIES = 300

REGISTERED = {name: skill.description for name, skill in SKILLS.items()}


def names() -> list[str]:
    """Every task."""
    package()  # says what is missing
    return list(SKILLS)


def find(name: str) -> Task | None:
    """The task of a skill; None for an unknown one."""
    if name not in SKILLS:
        return None
    return Task(
        name=f"miniworld/{name}",
        family="miniworld",
        make=functools.partial(MiniWorldTask, name),
        step_limit=SKILLS[name].steps,
        description=REGISTERED[name],
        frames=True,
        metric="success",
        default_expert="guide",
        controls=CONTROLS,
    )


class MiniWorldTask(gymnasium.Env):
    """One skill, in a room that the seed draws.

    Observations: (84, 84, 3) uint8.
    Actions: keys and mouse, as `controls.control_space` has them. A step turns first, then walks
        up to 0.4 m, then uses what stands ahead.
    Rewards: 1 - 0.9 * steps / max_steps on success, else 0.
    Info: `instruction` at reset; after each step `success`, and `named_first`, whether the first
        thing reached is one that the instruction names first. The episode ends with success, and
        where success is lost, as when another thing is reached or picked up.

    Args:
        skill: name of the task.
        render_mode: `rgb_array` or None.
        max_steps: steps after which the episode is truncated.
        words: `seen`, `paraphrases` (sentences that training never says, of words that it says)
            or `synonyms` (words that it never says).
        pairs: `seen`, or `heldout`: the thing that is named has a colour and a kind that stand
            together in no room of training.

    Raises:
        MissingPackageError: MiniWorld is missing.
        GeneralistError: OpenGL does not work here.
        UsageError: an option has no such value, or the task names no pair.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FRAMES_PER_SECOND}

    def __init__(
        self,
        skill: str,
        *,
        render_mode: str | None = None,
        max_steps: int | None = None,
        words: Words = "seen",
        pairs: Pairs = "seen",
    ) -> None:
        for option, value, known in (("words", words, WORDS), ("pairs", pairs, PAIRS)):
            if value not in known:
                raise UsageError(f"{option} is one of {', '.join(known)}; got {value!r}.")
        if pairs == "heldout" and not SKILLS[skill].names_a_pair:
            raise UsageError(
                f"miniworld/{skill} names no thing by colour and kind, so it has no held-out "
                "pairs; leave out `pairs`."
            )
        self.render_mode = render_mode
        self.skill, self.words, self.pairs = skill, words, pairs
        self._max_steps = max_steps or SKILLS[skill].steps
        self.observation_space = spaces.Box(0, 255, (FRAME_PIXELS, FRAME_PIXELS, 3), np.uint8)
        self.action_space = control_space()
        self.room = Room()
        self.mission: Mission | None = None  # None until reset, and after an episode's end

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new room and mission; `info["instruction"]` says it in words."""
        super().reset(seed=seed)
        rng = self.np_random
        while True:
            plan = SKILLS[self.skill].plan(Palette(rng, self.pairs))
            if self._furnish(plan, rng):
                break
        self.mission = Mission(plan.goals, self.room.scene)
        return self.room.frame(), {"instruction": say(plan.clauses, self.words, rng)}

    def _furnish(self, plan: Plan, rng: np.random.Generator) -> bool:
        """Build the room of a plan; False where its things do not fit into the room drawn."""
        size = rng.uniform(*_ROOM, size=2)
        doors = [thing for thing in plan.things if thing.kind == "door"]
        for side, door in zip(rng.permutation(4), doors, strict=False):
            _hang(door, int(side), size, rng)
        placed = list(doors)
        for thing in plan.things:
            if thing in doors:
                continue
            place = _free_place(placed, size, rng, apart=_APART)
            if place is None:
                return False
            thing.place = place
            placed.append(thing)
        apart, margin = _FROM_AGENT, plan.agent_from_walls
        place = _free_place(placed, size, rng, apart=apart, margin=margin)
        if place is None:
            return False
        self.room.build(
            plan.things,
            size=(float(size[0]), float(size[1])),
            place=place,
            heading=float(rng.uniform(-math.pi, math.pi)),
            walls=int(rng.integers(12)),
            floor=int(rng.integers(12)),
            seed=int(rng.integers(2**31)),
        )
        return True

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Turn, walk, and use what stands ahead."""
        mission = self.mission
        if mission is None:
            raise GeneralistError(
                f"miniworld/{self.skill}: call reset() before step(); no episode is on."
            )
        scene, keys = self.room.scene, held_keys(action)
        scene.events, scene.steps, scene.walked = [], scene.steps + 1, False
        yaw, pitch = np.clip(
            np.asarray(action["mouse"], np.float64),
            self.action_space["mouse"].low,
            self.action_space["mouse"].high,
        )
        self.room.turn(float(yaw), float(pitch))
        ahead, right = ("W" in keys) - ("S" in keys), ("D" in keys) - ("A" in keys)
        if ahead or right:
            length = WALK / math.hypot(ahead, right)
            self.room.walk(ahead * length, right * length)
        if "E" in keys:
            self.room.use()
        mission.judge(scene)
        self.room.sweep()
        done = mission.success is not None
        truncated = not done and scene.steps >= self._max_steps
        success = mission.success is True
        reward = 1 - 0.9 * scene.steps / self._max_steps if success else 0.0
        if done or truncated:
            self.mission = None
        info = {"success": success, "named_first": mission.named_first}
        return self.room.frame(), float(reward), done, truncated, info

    def render(self) -> np.ndarray | None:
        """What the agent sees, larger: (336, 336, 3) uint8; None without a render mode."""
        return self.room.picture() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the graphics memory."""
        self.room.close()


def _hang(door: Thing, side: int, size: np.ndarray, rng: np.random.Generator) -> None:
    """Put a door on the east, north, west or south wall, away from the corners."""
    x, y = size
    along = float(rng.uniform(0.3, 0.7))
    place, facing = {
        0: ((x, along * y), math.pi),
        1: ((along * x, y), -math.pi / 2),
        2: ((0.0, along * y), 0.0),
        3: ((along * x, 0.0), math.pi / 2),
    }[side]
    door.place, door.facing = np.array(place, np.float64), facing


def _free_place(
    placed: list[Thing],
    size: np.ndarray,
    rng: np.random.Generator,
    *,
    apart: float,
    margin: float = FROM_WALLS,
) -> np.ndarray | None:
    """A place in the room, away from walls and things; None where none is found."""
    for _ in range(_TRIES):
        place = rng.uniform(margin, size - margin)
        if all(np.linalg.norm(place - each.place) >= apart for each in placed):
            return place
    return None

