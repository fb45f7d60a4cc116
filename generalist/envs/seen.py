"""What stands in a picture, as statements are made of it and as the simulator's state tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

Pair = tuple[str, str]
"""A colour and a kind."""


class Spot(NamedTuple):
    """Where something stands in a picture.

    Attributes:
        side: how far to the right of the middle, negative to the left, in the camera's own units.
        away: how far from the camera, in its own units.
    """

    side: float
    away: float


@dataclass(frozen=True)
class Seen:
    """A thing in a picture.

    Attributes:
        colour, kind: as words have them.
        side, away: of its spot.
    """

    colour: str
    kind: str
    side: float
    away: float

    @property
    def name(self) -> str:
        """Such as `red key`."""
        return f"{self.colour} {self.kind}"


class Camera(Protocol):
    """Takes pictures of things in a simulator.

    Attributes:
        pairs: colours and kinds that it can show.
        most: most things of a picture.
    """

    pairs: Sequence[Pair]
    most: int

    def aim(self, count: int, rng: np.random.Generator) -> list[Spot]:
        """Stand somewhere, with `count` free spots in view: all plain to see, the nearest first.

        No two are equally far away, and none hides another.
        """

    def take(self, pairs: Sequence[Pair], rng: np.random.Generator) -> np.ndarray:
        """Put a thing of each pair on each spot, and take the picture: (84, 84, 3) uint8."""

    def seen(self) -> list[Seen]:
        """What the simulator's state says is in the picture, the nearest first."""

    def close(self) -> None:
        """Free what the simulator holds."""
