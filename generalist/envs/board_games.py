"""Board games as OpenSpiel plays them: sizes, cells and moves as the player to act sees them.

Legend: R = rows, C = columns, A = actions. Cells count row by row from the top left.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from generalist.errors import UsageError
from generalist.vocabulary import DEFAULT_RANGES

EMPTY, MINE, THEIRS = range(3)
MOST_ACTIONS = dict(DEFAULT_RANGES)["discrete"]  # an action is one token
MOST_CELLS_A_SIDE = 32
OWN_OTHELLO = "generalist_othello"
"""OpenSpiel's name of the rules in `othello.py`."""


@dataclass(frozen=True)
class BoardGame:
    """One game on a board of one size.

    spiel: OpenSpiel's name of it, with parameters.
    actions: A, the number of OpenSpiel's action ids.
    longest: moves of both players after which it is surely over.
    planes: of OpenSpiel's observation tensor, those of the first and the second player's pieces.
    cells: for each player, (R * C,) OpenSpiel's number of each cell as that player sees it.
    moves: for each player, (A,) OpenSpiel's id of each action as that player names it. Each is
        its own inverse.
    moves_by: what an action names: a cell (and perhaps, last, to pass), a column, or a step from
        a cell, in one of three directions, that captures or does not.
    symmetries: pairs of (R * C,) and (A,): the cell that comes to lie at each cell, and what each
        action is called afterwards. The first changes nothing.
    slanted: True where each row is drawn half a cell further to the right.
    """

    spiel: str
    rows: int
    columns: int
    actions: int
    longest: int
    planes: tuple[int, int]
    cells: tuple[np.ndarray, np.ndarray]
    moves: tuple[np.ndarray, np.ndarray]
    moves_by: Literal["cell", "column", "step"]
    symmetries: tuple[tuple[np.ndarray, np.ndarray], ...]
    slanted: bool = False

    @property
    def most_moves(self) -> int:
        """No position has more legal moves."""
        if self.moves_by == "step":
            return 3 * min(2 * self.columns, self.rows * self.columns)  # two rows of pieces
        return self.actions


def _indices(rows: int, columns: int) -> np.ndarray:
    return np.arange(rows * columns).reshape(rows, columns)


def _placing(
    spiel: str,
    rows: int,
    columns: int,
    *,
    planes: tuple[int, int],
    second: np.ndarray | None = None,
    slanted: bool = False,
) -> BoardGame:
    """A game whose moves are the cells; `second` is the board as the second player sees it."""
    plain = _indices(rows, columns).ravel()
    views = (plain, plain if second is None else second.ravel())
    size = rows * columns
    boards = _turned_twice(plain.reshape(rows, columns)) if slanted else _all_turns(rows)
    return BoardGame(
        spiel,
        rows,
        columns,
        actions=size,
        longest=size,
        planes=planes,
        cells=views,
        moves=views,
        moves_by="cell",
        symmetries=tuple((board.ravel(), _places(board)) for board in boards),
        slanted=slanted,
    )


def _turned_twice(board: np.ndarray) -> list[np.ndarray]:
    return [board, board[::-1, ::-1]]


def _all_turns(size: int) -> list[np.ndarray]:
    """A square board turned and mirrored in all eight ways."""
    board = _indices(size, size)
    return [np.rot90(each, times) for each in (board, board.T) for times in range(4)]


def _places(board: np.ndarray) -> np.ndarray:
    """Where each cell has come to lie on a board that was turned or mirrored."""
    return np.argsort(board, axis=None)


def _tic_tac_toe(rows: int, columns: int) -> BoardGame:
    return _placing("tic_tac_toe", rows, columns, planes=(2, 1))


def _gomoku(rows: int, columns: int) -> BoardGame:
    return _placing(f"gomoku(size={rows})", rows, columns, planes=(0, 1))


def _hex(rows: int, columns: int) -> BoardGame:
    # The first player connects top and bottom, the second left and right: transposed, the second
    # does what the first does.
    return _placing(
        f"hex(board_size={rows},plain_obs_tensor=True)",
        rows,
        columns,
        planes=(0, 1),
        second=_indices(rows, columns).T,
        slanted=True,
    )


def _connect_four(rows: int, columns: int) -> BoardGame:
    upright = _indices(rows, columns)[::-1].ravel()  # OpenSpiel's first row is the lowest
    same = np.arange(columns)
    return BoardGame(
        f"connect_four(rows={rows},columns={columns})",
        rows,
        columns,
        actions=columns,
        longest=rows * columns,
        planes=(0, 1),
        cells=(upright, upright),
        moves=(same, same),
        moves_by="column",
        symmetries=(
            (_indices(rows, columns).ravel(), same),
            (_indices(rows, columns)[:, ::-1].ravel(), same[::-1]),
        ),
    )


def _othello(rows: int, columns: int) -> BoardGame:
    # Mirrored left to right, the second player's first stones lie where the first one's do.
    plain, mirrored = _indices(rows, columns), _indices(rows, columns)[:, ::-1]
    skip = rows * columns  # the action that passes
    # The turns under which the first stones stay what they are.
    boards = [*_turned_twice(plain), *_turned_twice(plain.T)]
    return BoardGame(
        "othello" if rows == _OPENSPIEL_OTHELLO else f"{OWN_OTHELLO}(size={rows})",
        rows,
        columns,
        actions=skip + 1,
        longest=2 * rows * columns,
        planes=(1, 2),
        cells=(plain.ravel(), mirrored.ravel()),
        moves=(np.append(plain, skip), np.append(mirrored, skip)),
        moves_by="cell",
        symmetries=tuple((board.ravel(), np.append(_places(board), skip)) for board in boards),
    )


def _breakthrough(rows: int, columns: int) -> BoardGame:
    # An action is (row, column, player, left or straight or right, capture or not).
    flipped = _indices(rows, columns)[::-1]
    actions = np.arange(rows * columns * 12).reshape(rows, columns, 2, 3, 2)
    return BoardGame(
        f"breakthrough(rows={rows},columns={columns})",
        rows,
        columns,
        actions=actions.size,
        longest=2 * (2 * rows - 3) * columns + 1,  # each piece's steps, and each capture
        planes=(0, 1),
        cells=(_indices(rows, columns).ravel(), flipped.ravel()),
        moves=(actions.ravel(), actions[::-1, :, ::-1].ravel()),
        moves_by="step",
        symmetries=(
            (_indices(rows, columns).ravel(), actions.ravel()),
            (_indices(rows, columns)[:, ::-1].ravel(), actions[:, ::-1, :, ::-1].ravel()),
        ),
    )


@dataclass(frozen=True)
class _Kind:
    build: Callable[[int, int], BoardGame]
    smallest: int = 0  # rows and columns
    square: bool = False
    even: bool = False
    usual: int = 0  # the size that the name alone means; the name never says it
    only: bool = False  # whether there are no others


_OPENSPIEL_OTHELLO = 8  # the one size that OpenSpiel has
_KINDS = {
    "TicTacToe": _Kind(_tic_tac_toe, usual=3, only=True),
    "ConnectFour": _Kind(_connect_four, smallest=4),
    "Gomoku": _Kind(_gomoku, smallest=5, square=True),
    "Othello": _Kind(_othello, smallest=4, square=True, even=True, usual=_OPENSPIEL_OTHELLO),
    "Hex": _Kind(_hex, smallest=3, square=True),
    "Breakthrough": _Kind(_breakthrough, smallest=4),
}


@functools.cache
def find_game(name: str) -> BoardGame | None:
    """The game called `Game-RxC`, or `TicTacToe` or `Othello`; None where there is none.

    Othello alone has 8x8 cells; `Othello-6x6` and other even sizes have rules of our own.

    Raises:
        UsageError: The game cannot be played here on a board of that size.
    """
    match = re.fullmatch(r"([A-Za-z]+)(?:-([1-9]\d*)x([1-9]\d*))?", name)
    kind = _KINDS.get(match[1]) if match else None
    if match is None or kind is None:
        return None
    if match[2] is None:
        return kind.build(kind.usual, kind.usual) if kind.usual else None
    rows, columns = int(match[2]), int(match[3])
    if kind.only or rows == columns == kind.usual:
        return None
    _check_size(name, kind, rows=rows, columns=columns)
    game = kind.build(rows, columns)
    if game.actions > MOST_ACTIONS:
        raise UsageError(
            f"board/{name} has {game.actions:,} actions, and an action is one token of "
            f"{MOST_ACTIONS:,} values; take a smaller board."
        )
    return game


def _check_size(name: str, kind: _Kind, *, rows: int, columns: int) -> None:
    if not all(kind.smallest <= side <= MOST_CELLS_A_SIDE for side in (rows, columns)):
        raise UsageError(
            f"board/{name}: this game has boards from {kind.smallest} to {MOST_CELLS_A_SIDE} rows "
            f"and columns, not {rows}x{columns}."
        )
    if kind.square and rows != columns:
        raise UsageError(
            f"board/{name}: this game is played on square boards, such as "
            f"{max(rows, columns)}x{max(rows, columns)}."
        )
    if kind.even and rows % 2:
        raise UsageError(
            f"board/{name}: this game is played on boards of an even number of rows, such as "
            f"{rows + 1}x{rows + 1}."
        )


def agent_steps(game: BoardGame) -> int:
    """The most moves one of the two players can make."""
    return math.ceil(game.longest / 2)
