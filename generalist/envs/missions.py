"""Missions in a 3D world: what is asked for, and whether it was done, from the scene alone.

A mission is a list of goals, one after the other. Each goal is judged after every step: True once
it is reached, False once it cannot be reached any more, as when another thing was reached first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from generalist.envs.scene import LEVEL_PITCH, REACH, Scene, Thing, wrapped

NEXT_TO = 0.7  # metres between two things that are next to each other
FACING_DEGREES = 10.0
STILL_STEPS = 6
STOP_STEPS = 18  # within which the agent has to have stood still for STILL_STEPS
BESIDE_WALL = 1.3  # metres
FOLLOWED = 6.0  # metres along walls
_LEFT_BEHIND = 2 * REACH  # metres away from a thing, once it was reached
_TURNED, _WALKED = 75.0, 0.7  # degrees and metres that make a gesture
_UP, _DOWN = 15.0, -33.0  # degrees of pitch
GESTURES = ("left", "right", "up", "down", "ahead", "back", "still")


@dataclass(eq=False)
class Goal:
    """What one clause of an instruction asks for.

    Attributes:
        targets: the things that it names.
        named: whether the first thing that was reached is a target; None before one was.
        instead: what another instruction of this verb would have named, where the goal was lost by
            doing just that: a thing, or a verb that names none.
    """

    targets: tuple[Thing, ...] = ()
    named: bool | None = None
    instead: Thing | str | None = field(default=None, init=False)

    def begin(self, scene: Scene) -> None:
        """Look at the scene before the first step of this goal."""

    def judge(self, scene: Scene) -> bool | None:
        """Whether the goal was reached or lost in the last step; None where it goes on."""
        raise NotImplementedError

    def _touch(self, scene: Scene) -> Thing | None:
        """The thing that the agent has walked to; the first one decides `named`."""
        found = _walked_to(scene)
        if found is not None and self.named is None:
            self.named = found in self.targets
        return found

    def _decide(self, found: Thing) -> bool:
        """Whether what was asked for was done to a target; `instead` says to what else."""
        if found in self.targets:
            return True
        self.instead = found
        return False


def _walked_to(scene: Scene) -> Thing | None:
    """The thing that the agent has walked to, or over, in the last step."""
    return _taken(scene) if scene.touch and _taken(scene) else _stood_before(scene)


def _touched(scene: Scene) -> Thing | None:
    """The thing that the agent has touched: it is gone then, as the engine or the judge has it."""
    return _taken(scene) if scene.touch else _stood_before(scene)


def _taken(scene: Scene) -> Thing | None:
    return next((event.thing for event in scene.events if event.kind == "take"), None)


def _stood_before(scene: Scene) -> Thing | None:
    return scene.reached() if scene.walked else None


class Reach(Goal):
    """Stand before a target, facing it; no other thing is to be reached before.

    The thing that the goal before has led to does not count until the agent has left it.
    """

    def begin(self, scene: Scene) -> None:
        """As `Goal.begin`."""
        there = scene.reached()
        self._behind = None if there in self.targets else there

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        if self._behind is not None:
            if scene.away(self._behind) > _LEFT_BEHIND:
                self._behind = None
            elif _walked_to(scene) is self._behind:
                return None
        found = self._touch(scene)
        return None if found is None else self._decide(found)


class Take(Goal):
    """Pick up a target, and nothing else."""

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        self._touch(scene)
        for event in scene.events:
            return event.kind == "take" and self._decide(event.thing)
        return None


class Open(Goal):
    """Open a target, and nothing else."""

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        self._touch(scene)
        for event in scene.events:
            return event.kind == "open" and self._decide(event.thing)
        return None


class PutNext(Goal):
    """Put down what is held, next to a target."""

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        for event in scene.events:
            gaps = [
                float(np.linalg.norm(each.place - event.thing.place))
                - each.radius
                - event.thing.radius
                for each in self.targets
            ]
            self.named = event.kind == "put" and min(gaps) <= NEXT_TO
            return self.named
        return None


class Face(Goal):
    """Turn to a target and look at it for two steps, from where the agent stands."""

    def begin(self, scene: Scene) -> None:
        """As `Goal.begin`."""
        self._from = scene.place.copy()
        self._last: Thing | None = None

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        if np.linalg.norm(scene.place - self._from) > _WALKED:
            return False
        seen = [t for t in scene.things if abs(scene.bearing(t.place)) <= FACING_DEGREES]
        found = min(seen, key=lambda thing: abs(scene.bearing(thing.place)), default=None)
        held, self._last = self._last, found
        if found is None or found is not held:
            return None
        self.named = self._decide(found)
        return self.named


class LeaveAlone(Goal):
    """Touch every thing of the room but the targets; things vanish when they are touched."""

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        found = _touched(scene)
        if found is None:
            return None
        if self.named is None:
            self.named = found not in self.targets
        if found in self.targets:
            return False
        found.present = False
        return None if any(t.present for t in scene.things if t not in self.targets) else True


@dataclass(eq=False)
class Touch(Goal):
    """Touch `number` of the targets, and nothing else; things vanish when they are touched."""

    number: int = 1
    _count: int = field(default=0, init=False)

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        found = _touched(scene)
        if found is None:
            return None
        if self.named is None:
            self.named = found in self.targets
        if found not in self.targets:
            return False
        found.present = False
        self._count += 1
        return True if self._count == self.number else None


class Shoot(Goal):
    """Hit a target, and nothing else."""

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        for event in scene.events:
            if event.kind == "attack":
                self.named = self._decide(event.thing)
                return self.named
        return None


class Stop(Goal):
    """Stand still within STOP_STEPS; the targets are things that are not to be touched before."""

    def begin(self, scene: Scene) -> None:
        """As `Goal.begin`."""
        self._rest, self._until = _Rest(scene), scene.steps + STOP_STEPS

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        rest = self._rest.after(scene)
        if _touched(scene) in self.targets:
            return False
        if rest >= STILL_STEPS:
            return True
        return None if scene.steps < self._until else False


@dataclass(eq=False)
class FollowWall(Goal):
    """Walk along the walls for FOLLOWED metres, facing ahead, with the walls at `side`.

    The way that counts ends where the agent leaves the wall. The other way round is another
    instruction's.
    """

    side: str = "left"
    _gone: float = field(default=0.0, init=False)  # metres counterclockwise, walls to the right
    _before: tuple[np.ndarray, float] | None = field(default=None, init=False)

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        away, along = scene.along_walls()
        before, self._before = self._before, (scene.place.copy(), along)
        if away > BESIDE_WALL:
            self._gone, self._before = 0.0, None
        elif before is not None:
            place, last = before
            facing = [math.cos(scene.heading), math.sin(scene.heading)]
            if (scene.place - place) @ facing > 0:
                half = scene.around / 2
                self._gone += (along - last + half) % scene.around - half
        if abs(self._gone) < FOLLOWED:
            return None
        side = "right" if self._gone > 0 else "left"
        self.named = side == self.side
        if not self.named:
            self.instead = f"wall-{side}"
        return self.named


class _Rest:
    """How long the agent has stood still.

    Args:
        scene: as it is before the first step.
    """

    def __init__(self, scene: Scene) -> None:
        self._still = 0
        self._before = scene.place.copy(), scene.heading, scene.pitch

    def after(self, scene: Scene) -> int:
        """Look at the last step; returns how many there were without a move or a turn."""
        place, heading, pitch = self._before
        moved = np.linalg.norm(scene.place - place) > 0.05
        turning = abs(wrapped(scene.heading - heading)) > math.radians(3)
        self._still = 0 if moved or turning or abs(scene.pitch - pitch) > 3 else self._still + 1
        self._before = scene.place.copy(), scene.heading, scene.pitch
        return self._still


@dataclass(eq=False)
class Gesture(Goal):
    """Do one of `GESTURES`; the first that is done decides."""

    what: str = "still"

    def begin(self, scene: Scene) -> None:
        """As `Goal.begin`."""
        self._place, self._heading, self._rest = scene.place.copy(), scene.heading, _Rest(scene)

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        turned = -math.degrees(wrapped(scene.heading - self._heading))
        way = scene.place - self._place
        ahead = float(way @ [math.cos(self._heading), math.sin(self._heading)])
        done = {
            "left": turned <= -_TURNED,
            "right": turned >= _TURNED,
            "up": scene.pitch >= _UP,
            "down": scene.pitch <= _DOWN,
            "ahead": ahead >= _WALKED,
            "back": ahead <= -_WALKED,
            "still": self._rest.after(scene) >= STILL_STEPS,
        }
        if not any(done.values()):
            return None
        self.named = done[self.what]
        if not self.named:
            self.instead = next(gesture for gesture in GESTURES if done[gesture])
        return self.named


class Mission:
    """Goals, one after the other.

    Args:
        goals: in their order.
        scene: as it is before the first step.

    Attributes:
        success: True once all goals are reached, False once one is lost; None before.
        named_first: whether the first thing reached, of the first goal, is one that it names.
    """

    def __init__(self, goals: Sequence[Goal], scene: Scene) -> None:
        self.goals = list(goals)
        self.success: bool | None = None
        self.named_first = False
        self._at = 0
        self.goal.begin(scene)

    @property
    def goal(self) -> Goal:
        """The goal that is to be reached now; the last one after the end."""
        return self.goals[min(self._at, len(self.goals) - 1)]

    def judge(self, scene: Scene) -> None:
        """Judge the last step."""
        if self.success is not None:
            return
        verdict = self.goal.judge(scene)
        self.named_first = bool(self.goals[0].named)
        if verdict is False:
            self.success = False
        elif verdict:
            self._at += 1
            if self._at == len(self.goals):
                self.success = True
            else:
                self.goal.begin(scene)


__all__ = [
    "GESTURES", "LEVEL_PITCH", "Face", "FollowWall", "Gesture", "Goal", "LeaveAlone", "Mission",
    "Open", "PutNext", "Reach", "Shoot", "Stop", "Take", "Touch",
]  # fmt: skip
