"""What stands where in a 3D world, as judges of missions and experts read it from the simulator.

Places are (2,) float64 in metres: x to the east, y to the north. Headings are radians, counted
counterclockwise from the east. Pitch is in degrees, positive upwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

BODY_RADIUS = 0.4  # of the agent, in metres
REACH = 0.5  # metres between the agent's body and a thing that it has reached
REACH_DEGREES = 40.0  # to either side of where it faces
LEVEL_PITCH = -12.0  # degrees; the gaze at the start: what is near stays in view

EventKind = Literal["take", "put", "open", "attack"]


@dataclass(eq=False)
class Thing:
    """A thing that words can name.

    Attributes:
        colour, kind: as words have them.
        size: `big`, `small`, or "" where it is as usual.
        place: where its middle is; (2,) metres.
        radius: of the circle it fills, in metres.
        present: False once it is gone.
        opened: of a door.
        facing: the heading of its front; of a door that out of its wall. None where it matters to
            nobody.
    """

    colour: str
    kind: str
    size: str = ""
    place: np.ndarray = field(default_factory=lambda: np.zeros(2))
    radius: float = 0.4
    present: bool = True
    opened: bool = False
    facing: float | None = None


@dataclass(frozen=True)
class Event:
    """What the agent did to a thing in a step."""

    kind: EventKind
    thing: Thing


@dataclass
class Scene:
    """The state of a world.

    Attributes:
        things: all of them.
        walls: (W, 4) x1, y1, x2, y2 of walls that nobody walks or sees through, counterclockwise.
        place, heading, pitch: of the agent.
        held: what it carries.
        events: what it did in the last step.
        steps: taken so far.
        walked: whether the agent has moved in the last step. One that only turns reaches nothing.
        touch: metres to the middle of a thing at which it is picked up by itself; 0 where that
            takes a key.
    """

    things: list[Thing]
    walls: np.ndarray
    place: np.ndarray
    heading: float
    pitch: float
    held: Thing | None = None
    events: list[Event] = field(default_factory=list)
    steps: int = 0
    walked: bool = False
    touch: float = 0.0

    def away(self, thing: Thing) -> float:
        """Metres between the agent's body and a thing."""
        return float(np.linalg.norm(thing.place - self.place)) - BODY_RADIUS - thing.radius

    def bearing(self, place: np.ndarray) -> float:
        """Degrees from where the agent faces to a place, to the right positive."""
        x, y = place - self.place
        return -math.degrees(wrapped(math.atan2(y, x) - self.heading))

    def reaches(self, thing: Thing) -> bool:
        """Whether the agent stands before a thing, facing it."""
        return (
            thing.present
            and thing is not self.held
            and self.away(thing) <= REACH
            and abs(self.bearing(thing.place)) <= REACH_DEGREES
        )

    def reached(self) -> Thing | None:
        """The nearest thing that the agent reaches; None where it reaches none."""
        found = [thing for thing in self.things if self.reaches(thing)]
        return min(found, key=self.away, default=None)

    def along_walls(self) -> tuple[float, float]:
        """Where the agent is beside the walls of a room, which follow each other.

        Returns:
            Metres to the nearest wall, and metres from the first wall's begin along the walls to
            the point of it that is nearest.
        """
        begins, ends = self.walls[:, :2], self.walls[:, 2:]
        lengths = np.linalg.norm(ends - begins, axis=1)
        ways = (ends - begins) / lengths[:, None]
        along = np.clip(((self.place - begins) * ways).sum(axis=1), 0, lengths)
        feet = begins + along[:, None] * ways
        away = np.linalg.norm(feet - self.place, axis=1)
        nearest = int(np.argmin(away))
        return float(away[nearest]), float(lengths[:nearest].sum() + along[nearest])

    @property
    def around(self) -> float:
        """Metres of all walls together."""
        return float(np.linalg.norm(self.walls[:, 2:] - self.walls[:, :2], axis=1).sum())


def wrapped(angle: float) -> float:
    """An angle in radians, between -pi and pi."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
