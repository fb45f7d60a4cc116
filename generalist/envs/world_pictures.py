"""Pictures of 3D worlds: things in a room, seen by the agent that stands in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from generalist.envs.instructed import Room, World
from generalist.envs.scene import Thing
from generalist.envs.seen import Pair, Seen, Spot
from generalist.envs.skills import FROM_WALLS, Kit

MOST = 3
_TO_THE_SIDE = 27.0  # degrees, to the middle of a thing
_BETWEEN = 2.0  # degrees between the outlines of two things
_NEAR, _FAR = 1.9, 3.9  # metres: all of a thing is in view, and large enough
_APART = 0.4  # metres by which one thing is farther away than another
_ASIDE = 0.4  # radians, standard deviation of where the agent faces from the room's middle
_TURNED = 0.5  # radians, most that a thing is turned away from the camera
_TRIES = 12  # spots in a room before another is drawn


class WorldCamera:
    """Takes pictures in rooms of a 3D world.

    Pairs of colour and kind that are held out from the world's data stand in no picture.

    Args:
        world: gives rooms and things.

    Attributes:
        room: the simulator's.

    Raises:
        MissingPackageError: the engine's package is missing.
    """

    most = MOST

    def __init__(self, world: World) -> None:
        self._kit: Kit = world.kit
        self._sides = world.sides
        self.pairs: Sequence[Pair] = tuple(world.kit.allowed("seen"))
        self.room: Room = world.new_room()
        self._widest = max(world.kit.radius_of(kind, "") for _, kind in self.pairs)
        self._places: list[np.ndarray] = []

    def aim(self, count: int, rng: np.random.Generator) -> list[Spot]:
        """As `Camera.aim`; sides are degrees, distances metres."""
        while True:
            size = rng.uniform(*self._sides, size=2)
            place = rng.uniform(FROM_WALLS, size - FROM_WALLS)
            # Mostly into the room, where there is more to see.
            heading = _towards(place, size / 2) + float(rng.normal(0, _ASIDE))
            spots: list[Spot] = []
            for _ in range(_TRIES):
                if len(spots) == count:
                    break
                spot = Spot(rng.uniform(-_TO_THE_SIDE, _TO_THE_SIDE), rng.uniform(_NEAR, _FAR))
                at = _at(spot, place, heading)
                inside = ((at > FROM_WALLS / 2) & (at < size - FROM_WALLS / 2)).all()
                if inside and all(self._apart(spot, other) for other in spots):
                    spots.append(spot)
            if len(spots) == count:
                break
        spots.sort(key=lambda spot: spot.away)
        self._size, self._place, self._heading = size, place, heading
        self._places = [_at(spot, place, heading) for spot in spots]
        return spots

    def _apart(self, one: Spot, other: Spot) -> bool:
        """Whether two things hide nothing of each other, and one of them is plainly nearer."""
        widths = (math.degrees(math.asin(self._widest / each.away)) for each in (one, other))
        aside = abs(one.side - other.side) > sum(widths) + _BETWEEN
        return aside and abs(one.away - other.away) > _APART

    def take(self, pairs: Sequence[Pair], rng: np.random.Generator) -> np.ndarray:
        """As `Camera.take`; the room's walls and floor are drawn too."""
        things = [
            Thing(
                colour,
                kind,
                place=place,
                radius=self._kit.radius_of(kind, ""),
                # Turned to the camera, more or less: a key's end looks like a box.
                facing=_towards(place, self._place) + float(rng.uniform(-_TURNED, _TURNED)),
            )
            for (colour, kind), place in zip(pairs, self._places, strict=True)
        ]
        sides = float(self._size[0]), float(self._size[1])
        self.room.build(things, size=sides, place=self._place, heading=self._heading, rng=rng)
        return self.room.frame()

    def seen(self) -> list[Seen]:
        """As `Camera.seen`, from where the simulator has put the things and the agent."""
        scene = self.room.scene
        found = [
            Seen(
                each.colour,
                each.kind,
                scene.bearing(each.place),
                float(np.linalg.norm(each.place - scene.place)),
            )
            for each in scene.things
        ]
        return sorted(found, key=lambda each: each.away)

    def close(self) -> None:
        """End the simulator."""
        self.room.close()


def _at(spot: Spot, place: np.ndarray, heading: float) -> np.ndarray:
    """(2,) metres: where a spot is in a room."""
    angle = heading - math.radians(spot.side)
    return place + spot.away * np.array([math.cos(angle), math.sin(angle)])


def _towards(one: np.ndarray, other: np.ndarray) -> float:
    """Radians: the heading from one place to another."""
    x, y = other - one
    return math.atan2(y, x)
