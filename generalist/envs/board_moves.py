"""Moves of board games in words: columns are letters, rows are numbers from the top.

Everything is told as the player to move sees the board, as actions are (see `board_games.py`).
"""

from __future__ import annotations

import numpy as np

from generalist.envs.board_games import BoardGame
from generalist.errors import UsageError

PASS = "pass"
_STONES = ".xo"  # of the codes of cells: empty, mine, theirs
_FEW = 40  # moves that a message lists


def move_names(game: BoardGame) -> list[str]:
    """The name of each action: `c4` a cell, `c` a column, `c4d5` a step, `pass`.

    A step has the same name with and without a capture, because never both are legal. An action
    that this player never has is called "".
    """
    columns = [_letters(column) for column in range(game.columns)]
    if game.moves_by == "column":
        return columns
    cells = [f"{column}{row + 1}" for row in range(game.rows) for column in columns]
    if game.moves_by == "step":
        return [_step(game, cells, action) for action in range(game.actions)]
    return [*cells, PASS][: game.actions]


def _step(game: BoardGame, cells: list[str], action: int) -> str:
    """A step goes one row down, to the left, straight or to the right."""
    # An action is (row, column, player, left or straight or right, capture or not).
    row, column, player, way, _ = np.unravel_index(action, (game.rows, game.columns, 2, 3, 2))
    to = int(row) + 1, int(column) + int(way) - 1
    if player or to[0] >= game.rows or not 0 <= to[1] < game.columns:
        return ""
    first = int(row) * game.columns + int(column)
    return cells[first] + cells[to[0] * game.columns + to[1]]


def _letters(column: int) -> str:
    """`a` to `z`, then `aa`, `ab`, ..."""
    more, last = divmod(column, 26)
    return (_letters(more - 1) if more else "") + chr(ord("a") + last)


def read_move(game: BoardGame, text: str, legal: np.ndarray) -> int:
    """The action that a person names.

    Args:
        game: the game.
        text: what was typed; case and hyphens do not matter.
        legal: the legal actions.

    Raises:
        UsageError: there is no such move, or it is not legal now; the legal ones are named.
    """
    names = move_names(game)
    wanted = text.strip().lower().replace("-", "")
    found = [int(action) for action in legal if names[action] == wanted]
    if found:
        return found[0]
    known = bool(wanted) and wanted in names
    problem = f"{wanted} is not legal now" if known else f"{text.strip()!r} is no move here"
    listed = [names[action] for action in legal[:_FEW]]
    more = ", ..." if len(legal) > _FEW else ""
    raise UsageError(f"{problem}. Legal: {', '.join(listed)}{more}.")


def board_text(game: BoardGame, cells: np.ndarray) -> str:
    """The board with its letters and numbers: `x` mine, `o` theirs.

    Args:
        game: the game.
        cells: (rows * columns,) or (rows, columns) codes: 0 empty, 1 mine, 2 theirs.
    """
    width = len(_letters(game.columns - 1)) + 1
    numbers = len(str(game.rows))
    heads = "".join(f"{_letters(column):>{width}}" for column in range(game.columns))
    lines = [" " * numbers + heads]
    for row, codes in enumerate(np.reshape(cells, (game.rows, game.columns))):
        # In Hex each row lies half a cell further to the right.
        aslant = " " * (row * width // 2 if game.slanted else 0)
        stones = "".join(f"{_STONES[code]:>{width}}" for code in codes)
        lines.append(f"{row + 1:>{numbers}}{aslant}{stones}")
    return "\n".join(lines)
