"""Where one can walk and what one can see on a map of Doom: walls, shortest ways, lines of sight.

Legend: W = walls; R, C = rows and columns of a grid of cells. Lengths are in units of the map; the
player is 32 wide.
"""

from __future__ import annotations

import collections
import copy
from typing import Any

import numpy as np

_CELL = 16.0
_MARGIN = 20.0  # what a way keeps clear of walls: the player's half width and a little more
_AVOID = 48.0  # of poison
_OFF_THE_WAY = 6  # cells
_STEPS = ((1, 0), (-1, 0), (0, 1), (0, -1))


class Floor:
    """The map of one scenario, from the engine's list of sectors."""

    def __init__(self, sectors: Any) -> None:
        sides = collections.Counter(
            (line.x1, line.y1, line.x2, line.y2)
            for sector in sectors
            for line in sector.lines
            if line.is_blocking
        )
        self._walls = np.array(sorted(sides), np.float64)  # (W, 4)
        # A line with a sector on both sides is a window: one can see, and shoot, through it.
        opaque = sorted(line for line, count in sides.items() if count == 1)
        self._opaque = np.array(opaque, np.float64).reshape(-1, 4)
        self._low = np.minimum(self._walls[:, :2], self._walls[:, 2:]).min(axis=0) - _CELL
        high = np.maximum(self._walls[:, :2], self._walls[:, 2:]).max(axis=0) + _CELL
        shape = np.ceil((high - self._low) / _CELL).astype(int) + 1
        centres = np.indices(shape).reshape(2, -1).T * _CELL + self._low
        self._free = (_distance(centres, self._walls) > _MARGIN).reshape(shape)  # (R, C)

    def sees(self, here: np.ndarray, there: np.ndarray) -> bool:
        """True where no wall lies between two points (2,)."""
        start, end = self._opaque[:, :2], self._opaque[:, 2:]
        crossed = (_side(here, there, start) * _side(here, there, end) < 0) & (
            _side(start, end, here) * _side(start, end, there) < 0
        )
        return not crossed.any()

    def without(self, places: np.ndarray) -> Floor:
        """The same map where one cannot walk near any of (N, 2) places."""
        smaller = copy.copy(self)
        smaller._free = self._free.copy()
        for place in places:
            row, column = self._cell(place)
            reach = int(_AVOID / _CELL)
            smaller._free[
                max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1
            ] = False
        return smaller

    def way(self, here: np.ndarray, goals: np.ndarray) -> np.ndarray | None:
        """The point (2,) to walk to now, straight on, to get to the nearest of (G, 2) goals.

        None where no goal can be reached.
        """
        lengths = self._lengths(goals)
        cell = self._nearest_free(here, lengths)
        if cell is None:
            return None
        path = [cell]
        while lengths[path[-1]] > 0:
            row, column = path[-1]
            path.append(
                min(
                    ((row + down, column + right) for down, right in _STEPS),
                    key=lambda at: lengths[at],
                )
            )
        # The farthest point of the way that can be walked to in a straight line.
        ahead = path[0]
        for cell in path[1:40:2]:
            if not self._clear(here, self._point(cell)):
                break
            ahead = cell
        if ahead == path[-1] or (len(path) < 40 and ahead == path[-2]):
            return goals[np.argmin(np.linalg.norm(goals - self._point(path[-1]), axis=1))]
        return self._point(ahead)

    def _lengths(self, goals: np.ndarray) -> np.ndarray:
        """(R, C) steps to the nearest goal, infinite where there is no way."""
        lengths = np.full(self._free.shape, np.inf)
        front = np.zeros(self._free.shape, bool)
        for goal in goals:
            row, column = self._cell(goal)
            front[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
        steps = 0.0
        while front.any():
            lengths[front] = steps
            steps += 1.0
            grown = np.zeros_like(front)
            grown[1:] |= front[:-1]
            grown[:-1] |= front[1:]
            grown[:, 1:] |= front[:, :-1]
            grown[:, :-1] |= front[:, 1:]
            front = grown & self._free & np.isinf(lengths)
        return lengths

    def _nearest_free(self, here: np.ndarray, lengths: np.ndarray) -> tuple[int, int] | None:
        """The cell on a way to a goal that is nearest; a player may stand closer to a wall."""
        reached = np.argwhere(np.isfinite(lengths))
        if not len(reached):
            return None
        away = np.abs(reached - self._cell(here)).sum(axis=1)
        nearest = reached[np.argmin(away)]
        return (int(nearest[0]), int(nearest[1])) if away.min() <= _OFF_THE_WAY else None

    def _clear(self, here: np.ndarray, there: np.ndarray) -> bool:
        """True where a player can walk from one point straight to another."""
        count = int(np.linalg.norm(there - here) / (_CELL / 2)) + 1
        points = here + np.linspace(0, 1, count + 1)[1:, None] * (there - here)
        rows, columns = np.rint((points - self._low) / _CELL).astype(int).T
        return bool(self._free[rows, columns].all())

    def _cell(self, point: np.ndarray) -> tuple[int, int]:
        row, column = np.rint((point - self._low) / _CELL).astype(int)
        last = np.array(self._free.shape) - 1
        return int(np.clip(row, 0, last[0])), int(np.clip(column, 0, last[1]))

    def _point(self, cell: tuple[int, int]) -> np.ndarray:
        return np.array(cell) * _CELL + self._low


def _side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Positive where the point lies left of the line from start to end; over (..., 2)."""
    along, to = end - start, point - start
    return along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]


def _distance(points: np.ndarray, walls: np.ndarray) -> np.ndarray:
    """(P,) distance of (P, 2) points to the nearest of (W, 4) walls."""
    nearest = np.full(len(points), np.inf)
    for x1, y1, x2, y2 in walls:
        start, along = np.array([x1, y1]), np.array([x2 - x1, y2 - y1])
        share = np.clip((points - start) @ along / max(along @ along, 1e-9), 0.0, 1.0)
        foot = start + share[:, None] * along
        nearest = np.minimum(nearest, np.linalg.norm(points - foot, axis=1))
    return nearest
