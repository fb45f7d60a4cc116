"""Random games of Connect Four, many at a time, on bits: a million games in some seconds.

A board is two integers of 64 bits, the stones of either player. Column c has the bits c (R + 1) to
c (R + 1) + R - 1 from the bottom; the bit above stays empty, so no line of four wraps around.

Legend: N = games, R = rows, C = columns, P = R C plies at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BITS = 63  # of a state's key, as int64


@dataclass(frozen=True)
class RandomGames:
    """Games of random legal moves.

    Attributes:
        moves: (N, P) int8, columns; -1 behind the last move.
        keys: (N, P) int64, the state before each move: the same number for the same state.
    """

    moves: np.ndarray
    keys: np.ndarray


def fits(rows: int, columns: int) -> bool:
    """Whether a board of this size fits into 63 bits."""
    return (rows + 1) * columns <= _BITS


def random_games(rows: int, columns: int, count: int, random: np.random.Generator) -> RandomGames:
    """Play games of random legal moves, all in step.

    Args:
        rows: R.
        columns: C; the board must fit (see `fits`).
        count: N.
        random: what the moves are drawn from.
    """
    plies, high = rows * columns, rows + 1
    bottom = np.int64(sum(1 << (column * high) for column in range(columns)))
    moves = np.full((count, plies), -1, np.int8)
    keys = np.zeros((count, plies), np.int64)
    running = np.arange(count)
    mine, both = np.zeros(count, np.int64), np.zeros(count, np.int64)
    heights = np.zeros((count, columns), np.int8)
    for ply in range(plies):
        # The stones of the player to move, and a bit above each column, which tells the heights.
        keys[running, ply] = mine + both + bottom
        column = _drawn(heights < rows, random)
        each = np.arange(len(running))
        place = column.astype(np.int64) * high + heights[each, column]
        heights[each, column] += 1
        moves[running, ply] = column
        placed = mine | np.left_shift(np.int64(1), place)
        both |= np.left_shift(np.int64(1), place)
        on = ~_has_line(placed, high)
        mine = (both ^ placed)[on]  # the other's stones
        both, heights, running = both[on], heights[on], running[on]
    return RandomGames(moves, keys)


def _drawn(legal: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(N,) one of the True columns of each row (N, C), each as likely."""
    upto = legal.cumsum(axis=1, dtype=np.int8)
    which = (random.random(len(legal), np.float32) * upto[:, -1]).astype(np.int8)
    # A float32 below 1 times a count may round up to the count.
    return (upto <= np.minimum(which, upto[:, -1] - 1)[:, None]).sum(axis=1, dtype=np.int8)


def _has_line(stones: np.ndarray, high: int) -> np.ndarray:
    """(N,) whether four stones stand in a line: upright, level, or along a diagonal."""
    found = np.zeros(len(stones), bool)
    for step in (1, high, high - 1, high + 1):
        pairs = stones & (stones >> step)
        found |= (pairs & (pairs >> 2 * step)) != 0
    return found
