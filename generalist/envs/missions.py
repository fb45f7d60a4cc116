"""Missions in a 3D world: what is asked for, and whether it was done, from the scene alone.

A mission is a list of goals, one after the other. Each goal is judged after every step: True once
it is reached, False once it cannot be reached any more, as when another thing was reached first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from generalist.envs.scene import LEVEL_PITCH, Scene, Thing, wrapped

NEXT_TO = 0.7  # metres between two things that are next to each other
FACING_DEGREES = 10.0
STILL_STEPS = 6
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
            doing just that: a thing, or a gesture.
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
    if scene.touch and scene.events:
        return scene.events[0].thing
    return scene.reached() if scene.walked else None


class Reach(Goal):
    """Stand before a target, facing it; no other thing is to be reached before."""

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
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
    """Reach every thing of the room but the targets, which vanish when they are reached."""

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        found = _walked_to(scene)
        if found is None:
            return None
        if self.named is None:
            self.named = found not in self.targets
        if found in self.targets:
            return False
        found.present = False
        return None if any(t.present for t in scene.things if t not in self.targets) else True


@dataclass(eq=False)
class Gesture(Goal):
    """Do one of `GESTURES`; the first that is done decides."""

    what: str = "still"
    _still: int = field(default=0, init=False)

    def begin(self, scene: Scene) -> None:
        """As `Goal.begin`."""
        self._place, self._heading = scene.place.copy(), scene.heading
        self._before = (scene.place.copy(), scene.heading, scene.pitch)

    def judge(self, scene: Scene) -> bool | None:
        """As `Goal.judge`."""
        turned = -math.degrees(wrapped(scene.heading - self._heading))
        way = scene.place - self._place
        ahead = float(way @ [math.cos(self._heading), math.sin(self._heading)])
        place, heading, pitch = self._before
        moved = np.linalg.norm(scene.place - place) > 0.05
        turning = abs(wrapped(scene.heading - heading)) > math.radians(3)
        self._still = 0 if moved or turning or abs(scene.pitch - pitch) > 3 else self._still + 1
        self._before = (scene.place.copy(), scene.heading, scene.pitch)
        done = {
            "left": turned <= -_TURNED,
            "right": turned >= _TURNED,
            "up": scene.pitch >= _UP,
            "down": scene.pitch <= _DOWN,
            "ahead": ahead >= _WALKED,
            "back": ahead <= -_WALKED,
            "still": self._still >= STILL_STEPS,
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
    "GESTURES", "LEVEL_PITCH", "Face", "Gesture", "Goal", "LeaveAlone", "Mission", "Open",
    "PutNext", "Reach", "Take",
]  # fmt: skip
