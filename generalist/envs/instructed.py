"""Instructed worlds in 3D: a room, a mission and words that the seed draws, whatever the engine."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs.controls import CONTROLS, PITCH_HIGH, YAW_HIGH, control_space, held_keys
from generalist.envs.mission_words import WORDS, Words, say
from generalist.envs.missions import Mission
from generalist.envs.registry import Task
from generalist.envs.scene import Scene, Thing
from generalist.envs.skills import PAIRS, Clause, Kit, Pairs, Palette, Plan, Skill
from generalist.errors import GeneralistError, UsageError

FRAME_PIXELS = 84
_TRIES = 300


class Room(Protocol):
    """An engine's room.

    Attributes:
        scene: the state, kept up to date.
    """

    scene: Scene

    def build(
        self,
        things: list[Thing],
        *,
        size: tuple[float, float],
        place: np.ndarray,
        heading: float,
        rng: np.random.Generator,
    ) -> None:
        """Build a room anew.

        Args:
            things: with the places where they stand.
            size: (x, y) metres of the room, whose south-west corner is at (0, 0).
            place, heading: of the agent.
            rng: draws how it looks.
        """

    def execute(self, keys: set[str], yaw: float, pitch: float) -> None:
        """Take a step with the keys that are held, and degrees of the mouse."""

    def sweep(self) -> None:
        """Take out of the world what is gone from the scene."""

    def frame(self) -> np.ndarray:
        """What the agent sees: (84, 84, 3) uint8."""

    def picture(self) -> np.ndarray:
        """The same for people, larger: (H, W, 3) uint8."""

    def close(self) -> None:
        """Free what the engine holds."""


@dataclass(frozen=True)
class World:
    """How a family makes its rooms.

    Attributes:
        kit: its things.
        skills: its tasks, by name.
        new_room: starts the engine.
        sides: metres of a room's side, at least and at most.
        apart: metres between things, at least.
        from_agent: metres between the agent and each thing, at least.
        frames_per_second: how many steps make a second.
    """

    kit: Kit
    skills: dict[str, Skill]
    new_room: Callable[[], Room]
    sides: tuple[float, float]
    apart: float
    from_agent: float
    frames_per_second: int

    def task(self, family: str, name: str) -> Task | None:
        """The task of a skill in this family; None for an unknown one."""
        if name not in self.skills:
            return None
        skill, task = self.skills[name], f"{family}/{name}"
        return Task(
            name=task,
            family=family,
            make=functools.partial(InstructedWorld, task, self, skill),
            step_limit=skill.steps,
            description=skill.description,
            frames=True,
            metric="success",
            default_expert="guide",
            controls=CONTROLS,
        )


class InstructedWorld(gymnasium.Env):
    """One skill, in a room that the seed draws.

    Observations: (84, 84, 3) uint8.
    Actions: keys and mouse, as `controls.control_space` has them.
    Rewards: 1 - 0.9 * steps / max_steps on success, else 0.
    Info: `instruction` at reset; after each step `success`, and `named_first`, whether the first
        thing reached is one that the instruction names first. The episode ends with success, and
        where success is lost, as when another thing is reached or picked up. `hindsight` where
        another instruction of the task would have made that a success: it, and its reward.

    Args:
        task: name of the task, for messages.
        world: the family's.
        skill: what is asked for.
        render_mode: `rgb_array` or None.
        max_steps: steps after which the episode is truncated.
        words: `seen`, `paraphrases` (sentences that training never says, of words that it says)
            or `synonyms` (words that it never says).
        pairs: `seen`, or `heldout`: the thing that is named has a colour and a kind that stand
            together in no room of training.

    Raises:
        MissingPackageError: the engine's package is missing.
        GeneralistError: the engine does not work here.
        UsageError: an option has no such value, or the task names no pair.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 6}

    def __init__(
        self,
        task: str,
        world: World,
        skill: Skill,
        *,
        render_mode: str | None = None,
        max_steps: int | None = None,
        words: Words = "seen",
        pairs: Pairs = "seen",
    ) -> None:
        for option, value, known in (("words", words, WORDS), ("pairs", pairs, PAIRS)):
            if value not in known:
                raise UsageError(f"{option} is one of {', '.join(known)}; got {value!r}.")
        if pairs == "heldout" and not skill.names_a_pair:
            raise UsageError(
                f"{task} names no thing by colour and kind, so it has no held-out pairs; leave "
                "out `pairs`."
            )
        self.task, self.world, self.skill = task, world, skill
        self.metadata = {**self.metadata, "render_fps": world.frames_per_second}
        self.render_mode = render_mode
        self.words, self.pairs = words, pairs
        self._max_steps = max_steps or skill.steps
        self.observation_space = spaces.Box(0, 255, (FRAME_PIXELS, FRAME_PIXELS, 3), np.uint8)
        self.action_space = control_space()
        self.room = world.new_room()
        self.mission: Mission | None = None  # None until reset, and after an episode's end
        self._clauses: list[Clause] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new room and mission; `info["instruction"]` says it in words."""
        super().reset(seed=seed)
        rng = self.np_random
        while True:
            plan = self.skill.plan(Palette(rng, self.world.kit, self.pairs))
            if self._furnish(plan, rng):
                break
        self.mission, self._clauses = Mission(plan.goals, self.room.scene), plan.clauses
        return self.room.frame(), {"instruction": say(plan.clauses, self.words, rng)}

    def _furnish(self, plan: Plan, rng: np.random.Generator) -> bool:
        """Build the room of a plan; False where its things do not fit into the room drawn."""
        size = rng.uniform(*self.world.sides, size=2)
        placed = [thing for thing in plan.things if thing.kind == "door"]
        for side, door in zip(rng.permutation(4), placed, strict=False):
            _hang(door, int(side), size, rng)
        for thing in plan.things:
            if thing.kind == "door":
                continue
            place = _free_place(
                placed, size, rng, apart=self.world.apart, margin=plan.things_from_walls
            )
            if place is None:
                return False
            thing.place = place
            placed.append(thing)
        apart, margin = self.world.from_agent, plan.agent_from_walls
        place = _free_place(placed, size, rng, apart=apart, margin=margin)
        if place is None:
            return False
        heading = float(rng.uniform(-math.pi, math.pi))
        sides = float(size[0]), float(size[1])
        self.room.build(plan.things, size=sides, place=place, heading=heading, rng=rng)
        return True

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold the keys, move the mouse, and judge what came of it."""
        mission, scene = self.mission, self.room.scene
        if mission is None:
            raise GeneralistError(f"{self.task}: call reset() before step(); no episode is on.")
        scene.events, scene.steps, scene.walked = [], scene.steps + 1, False
        yaw, pitch = (float(each) for each in action["mouse"])
        self.room.execute(
            held_keys(action),
            min(max(yaw, -YAW_HIGH), YAW_HIGH),
            min(max(pitch, -PITCH_HIGH), PITCH_HIGH),
        )
        mission.judge(scene)
        self.room.sweep()
        done = mission.success is not None
        truncated = not done and scene.steps >= self._max_steps
        success = mission.success is True
        earned = 1 - 0.9 * scene.steps / self._max_steps
        reward = earned if success else 0.0
        info: dict[str, Any] = {"success": success, "named_first": mission.named_first}
        if (clause := self._done_instead(mission)) is not None:
            said = say([clause], self.words, self.np_random)
            info["hindsight"] = {"instruction": said, "reward": earned}
        if done or truncated:
            self.mission = None
        return self.room.frame(), float(reward), done, truncated, info

    def _done_instead(self, mission: Mission) -> Clause | None:
        """What a mission of one goal would have had to ask for to be a success; None for nothing.

        It names as much of the thing as the mission does, and no other thing fits that.
        """
        instead, clauses = mission.goal.instead, self._clauses
        if instead is None or len(clauses) != 1:
            return None
        verb, named = clauses[0]
        if isinstance(instead, str) or named is None:
            return (instead, None) if isinstance(instead, str) else None
        said = Thing(
            instead.colour if named.colour else "",
            named.kind if named.kind == "thing" else instead.kind,
            instead.size if named.size else "",
        )
        fitting = [each for each in self.room.scene.things if _fits(each, said)]
        return (verb, said) if fitting == [instead] else None

    def render(self) -> np.ndarray | None:
        """What the agent sees, larger; None without a render mode."""
        return self.room.picture() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free what the engine holds."""
        self.room.close()


def _fits(thing: Thing, said: Thing) -> bool:
    """Whether words about `said` are true of a thing."""
    return (
        said.colour in ("", thing.colour)
        and said.kind in ("thing", thing.kind)
        and said.size in ("", thing.size)
    )


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
    margin: float,
) -> np.ndarray | None:
    """A place in the room, away from walls and things; None where none is found."""
    for _ in range(_TRIES):
        place = rng.uniform(margin, size - margin)
        if all(np.linalg.norm(place - each.place) >= apart for each in placed):
            return place
    return None
