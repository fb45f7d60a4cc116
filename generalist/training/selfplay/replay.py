"""Replay: the positions of finished games, from which the network learns.

Legend: K = cells of the common board, L = most legal moves, B = positions drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from generalist.envs.board_view import Boards

_FIELDS = {
    "game": np.int16,
    "cells": np.uint8,
    "moves": np.int16,
    "visits": np.uint16,
    "outcome": np.float32,
    "value": np.float32,
    "full": bool,
}


@dataclass(frozen=True)
class Played:
    """Positions of games, each told by its player to move; B rows.

    Attributes:
        game: (B,) int16, number of the game.
        cells: (B, K) uint8.
        moves: (B, L) int16, moves of the common board; -1 behind the legal ones.
        visits: (B, L) uint16, of each move in the search.
        outcome: (B,) float32, what the player won in the end: -1, 0 or 1.
        value: (B,) float32, what the search expected.
        full: (B,) bool, whether the search was a full one.
    """

    game: np.ndarray
    cells: np.ndarray
    moves: np.ndarray
    visits: np.ndarray
    outcome: np.ndarray
    value: np.ndarray
    full: np.ndarray


class Replay:
    """A ring of the newest positions.

    Args:
        boards: the games.
        capacity: most positions kept.

    Attributes:
        seen: positions added so far.
    """

    def __init__(self, boards: Boards, capacity: int) -> None:
        self.seen, self.capacity = 0, capacity
        self._count = 0  # of the positions that are kept
        widths = {"cells": boards.common.cells}
        widths |= dict.fromkeys(("moves", "visits"), boards.most_moves)
        self._rows = {
            name: np.zeros((capacity, widths[name]) if name in widths else capacity, dtype)
            for name, dtype in _FIELDS.items()
        }
        self._symmetries = [boards.symmetries(number) for number in range(len(boards.views))]

    def __len__(self) -> int:
        return self._count

    def add(self, played: Played) -> None:
        """Add the positions of a game."""
        count = len(played.game)
        places = (self.seen + np.arange(count)) % self.capacity
        for name, rows in self._rows.items():
            rows[places] = getattr(played, name)
        self.seen += count
        self._count = min(self._count + count, self.capacity)

    def draw(self, count: int, window: int, random: np.random.Generator) -> Played:
        """Draw positions from the newest `window`, each turned by one of its symmetries."""
        newest = min(window, len(self))
        places = (self.seen - newest + random.integers(newest, size=count)) % self.capacity
        drawn = {name: rows[places] for name, rows in self._rows.items()}
        turn = random.integers(2**30, size=count)
        for number, symmetries in enumerate(self._symmetries):
            here = drawn["game"] == number
            for which, (cells, names) in enumerate(symmetries):
                rows = np.flatnonzero(here & (turn % len(symmetries) == which))
                if which and len(rows):
                    drawn["cells"][rows] = drawn["cells"][rows][:, cells]
                    drawn["moves"][rows] = names[drawn["moves"][rows]]
        return Played(**drawn)

    def state(self) -> dict[str, np.ndarray]:
        """All that is kept, by name, oldest first."""
        order = (self.seen - len(self) + np.arange(len(self))) % self.capacity
        return {name: rows[order] for name, rows in self._rows.items()}

    def restore(self, state: Mapping[str, np.ndarray], seen: int) -> None:
        """Take what `state` gave, and how many had been added.

        A smaller ring than that of `state` takes the newest; a larger one fills up from there.
        """
        count = len(state["game"])
        self.seen, self._count = seen, min(count, self.capacity)
        order = (seen - count + np.arange(count)) % self.capacity
        for name, rows in self._rows.items():
            rows[order] = state[name]


def stacked(parts: Sequence[Played]) -> Played:
    """Positions of several games as one."""
    return Played(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in _FIELDS})
