"""Pictures of BabyAI: what the agent sees from a cell of a room, in 7x7 cells of 12 pixels."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from generalist.envs.babyai import VIEW_CELLS
from generalist.envs.seen import Pair, Seen, Spot
from generalist.errors import MissingPackageError

COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
KINDS = ("ball", "box", "key")
TILE_PIXELS = 12
_LEVEL = "BabyAI-GoToLocal-v0"  # one room with walls around
_AHEAD = ((1, 0), (0, 1), (-1, 0), (0, -1))  # by direction: east, south, west, north
_LEAST_CELLS = 12  # of the room in view


class BabyAICamera:
    """Takes pictures in the room of a BabyAI level, from the agent's own view.

    Raises:
        MissingPackageError: minigrid is missing.
    """

    pairs: Sequence[Pair] = tuple((colour, kind) for colour in COLOURS for kind in KINDS)
    most = 5

    def __init__(self) -> None:
        try:
            import minigrid  # noqa: F401  (registers its ids with Gymnasium)
        except ImportError as error:
            raise MissingPackageError("minigrid", "pictures of BabyAI") from error
        with contextlib.redirect_stdout(io.StringIO()):  # it prints each rejected mission
            self._env: Any = gymnasium.make(_LEVEL, disable_env_checker=True).unwrapped
            self._env.reset(seed=0)
        self._spots: list[tuple[int, int]] = []  # cells of the room

    def aim(self, count: int, rng: np.random.Generator) -> list[Spot]:
        """As `Camera.aim`; sides and distances are in cells."""
        size, half = self._env.grid.width, VIEW_CELLS // 2
        while True:
            x, y = (int(each) for each in rng.integers(1, size - 1, size=2))
            direction = int(rng.integers(4))
            (ax, ay) = _AHEAD[direction]
            cells = {
                (x + ahead * ax - right * ay, y + ahead * ay + right * ax): (right, ahead)
                for ahead in range(VIEW_CELLS)
                for right in range(-half, half + 1)
                if ahead or right
            }
            inside = [cell for cell in cells if all(0 < each < size - 1 for each in cell)]
            if len(inside) < _LEAST_CELLS:
                continue
            drawn = [inside[i] for i in rng.permutation(len(inside))[:count]]
            spots = {cell: Spot(cells[cell][0], float(np.hypot(*cells[cell]))) for cell in drawn}
            if len({spot.away for spot in spots.values()}) == count and _has_sides(spots.values()):
                break
        self._pose = (x, y), direction
        self._spots = sorted(spots, key=lambda cell: spots[cell].away)
        return [spots[cell] for cell in self._spots]

    def take(self, pairs: Sequence[Pair], rng: np.random.Generator) -> np.ndarray:
        """As `Camera.take`."""
        from minigrid.core.world_object import Ball, Box, Key

        kinds = {"ball": Ball, "box": Box, "key": Key}
        env, size = self._env, self._env.grid.width
        for x in range(1, size - 1):
            for y in range(1, size - 1):
                env.grid.set(x, y, None)
        env.agent_pos, env.agent_dir = self._pose
        for cell, (colour, kind) in zip(self._spots, pairs, strict=True):
            env.grid.set(*cell, kinds[kind](colour))
        return env.get_pov_render(TILE_PIXELS)

    def seen(self) -> list[Seen]:
        """As `Camera.seen`, from the cells that minigrid says the agent observes."""
        from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT

        found = []
        for (column, row), kind in np.ndenumerate(cells := self._env.gen_obs()["image"][:, :, 0]):
            name = IDX_TO_OBJECT[int(kind)]
            if name in KINDS:
                side, ahead = column - VIEW_CELLS // 2, len(cells) - 1 - row
                hue = IDX_TO_COLOR[int(self._env.gen_obs()["image"][column, row, 1])]
                found.append(Seen(hue, name, float(side), float(np.hypot(side, ahead))))
        return sorted(found, key=lambda each: each.away)

    def close(self) -> None:
        """Close minigrid's environment."""
        self._env.close()


def _has_sides(spots: Any) -> bool:
    """Whether two of some spots differ in their side; also where there is only one."""
    sides = [spot.side for spot in spots]
    return len(sides) < 2 or len(set(sides)) > 1
