"""Board games as games of two: pure functions of the rules and a state.

A state is OpenSpiel's, and nothing here changes it. What a player sees is told from that player's
own side (see `board_games.py`), so one policy plays both sides.

Legend: N = states, K = cells of the largest board, L = most legal moves of any position,
S = side of the common board, M = its moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from generalist.envs.board_games import MINE, MOST_ACTIONS, THEIRS, BoardGame, find_game
from generalist.errors import MissingPackageError, UsageError
from generalist.planning.tree import Positions

OFF_BOARD = 3
"""The code of a cell of the common board that a game's own board does not have."""

_STEPS = 6  # of a cell: three directions, with a capture or without


class BoardView:
    """One game on one board, for either player.

    Raises MissingPackageError where OpenSpiel is missing.
    """

    def __init__(self, game: BoardGame) -> None:
        try:
            import pyspiel
        except ImportError as error:
            raise MissingPackageError("pyspiel", "board/") from error
        from open_spiel.python.observation import make_observation

        import generalist.envs.othello  # noqa: F401 - registers it

        self.game = game
        self._spiel = pyspiel.load_game(game.spiel)

        self._observer = make_observation(self._spiel)
        size = game.rows * game.columns
        self._own, self._other = (
            [game.planes[player ^ flip] * size + game.cells[player] for player in (0, 1)]
            for flip in (0, 1)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return BoardView, (self.game,)  # OpenSpiel's parts are made anew in another process

    @classmethod
    def named(cls, name: str) -> BoardView:
        """The game of a name such as `ConnectFour-6x7`; UsageError where there is none."""
        game = find_game(name)
        if game is None:
            raise UsageError(
                f"There is no board {name!r}; see `generalist tasks board`. Others are named by "
                "their size, such as Hex-8x8."
            )
        return cls(game)

    def start(self) -> Any:
        """The first state of a game (pyspiel.State)."""
        return self._spiel.new_initial_state()

    @staticmethod
    def mover(state: Any) -> int:
        """Who is to move, 0 or 1."""
        return int(state.current_player())

    def after(self, state: Any, move: int) -> Any:
        """The state after a move, as the mover names it."""
        return state.child(int(self.game.moves[self.mover(state)][move]))

    def legal(self, state: Any, player: int | None = None) -> np.ndarray:
        """The legal moves in ascending order as a player names them, by default the mover's."""
        player = self.mover(state) if player is None else player
        return np.sort(self.game.moves[player][state.legal_actions()])

    def cells(self, state: Any, player: int | None = None) -> np.ndarray:
        """(rows * columns,) uint8 as a player sees them: 0 empty, 1 mine, 2 theirs."""
        player = self.mover(state) if player is None else player
        planes = self.planes(state)
        seen = MINE * planes[self._own[player]] + THEIRS * planes[self._other[player]]
        return seen.astype(np.uint8)

    def planes(self, state: Any) -> np.ndarray:
        """OpenSpiel's observation, flat float32; the next call overwrites it."""
        # A tenth of the time of state.observation_tensor(), which makes a list.
        self._observer.set_from(state, 0)
        return self._observer.tensor

    def planes_of(self, states: Sequence[Any]) -> np.ndarray:
        """(N, planes) float32, OpenSpiel's observations of N states."""
        found = np.empty((len(states), self._observer.tensor.size), np.float32)
        for row, state in enumerate(states):
            found[row] = self.planes(state)
        return found

    def seen(self, planes: np.ndarray, player: int) -> np.ndarray:
        """(N, rows * columns) cells of N observations (N, planes) by one player."""
        return MINE * planes[:, self._own[player]] + THEIRS * planes[:, self._other[player]]

    @staticmethod
    def outcome(state: Any, player: int) -> float | None:
        """1 where the player has won, -1 lost, 0 drawn; None while the game goes on."""
        return float(state.returns()[player]) if state.is_terminal() else None


@dataclass(frozen=True)
class Position:
    """A state of a game, in which a policy that knows the rules may search."""

    view: BoardView
    state: Any


class CommonBoard:
    """One board of S x S cells on which smaller ones lie, in the lower left corner.

    So a model shares what it learns of a cell and of a move among games and sizes. Cells beyond a
    game's own board have the code OFF_BOARD. The M moves are named by a cell, by passing, by a
    column, or by a step from a cell.

    Raises UsageError where M is more than an action token can say.
    """

    def __init__(self, side: int) -> None:
        self.side, self.cells = side, side * side
        self._columns = self.cells + 1  # after the cells and the pass
        self._steps = self._columns + side
        self.moves = self._steps + _STEPS * self.cells
        if self.moves > MOST_ACTIONS:
            raise UsageError(
                f"A common board of {side}x{side} cells has {self.moves:,} moves, and an action is "
                f"one token of {MOST_ACTIONS:,} values; take boards of at most 12 rows and columns."
            )

    def slots(self, rows: int, columns: int) -> np.ndarray:
        """(rows * columns,) int64: where the cells of a board lie; UsageError if it is larger."""
        if max(rows, columns) > self.side:
            raise UsageError(
                f"A board of {rows}x{columns} cells does not fit on the model's common board of "
                f"{self.side}x{self.side}."
            )
        row = np.arange(self.side - rows, self.side)
        return (row[:, None] * self.side + np.arange(columns)).ravel()

    def codes(self, game: BoardGame) -> np.ndarray:
        """(actions,) int64: the move of each action of a game; -1 where it is never legal."""
        slots = self.slots(game.rows, game.columns)
        if game.moves_by == "column":
            return self._columns + np.arange(game.columns)
        if game.moves_by == "step":
            # Actions are (cell, player, step); whoever moves names them as the first player.
            codes = np.full((len(slots), 2, _STEPS), -1)
            codes[:, 0] = self._steps + slots[:, None] * _STEPS + np.arange(_STEPS)
            return codes.ravel()
        return np.append(slots, self.cells)[: game.actions]


class Boards:
    """Several games on one common board: the rules that a search asks."""

    def __init__(self, views: Sequence[BoardView], common: CommonBoard) -> None:
        self.views, self.common = list(views), common
        self.most_moves = max(view.game.most_moves for view in views)
        self._slots = [common.slots(view.game.rows, view.game.columns) for view in views]
        most = max(view.game.actions for view in views)
        self._codes = np.full((len(views), 2, most), -1)
        for number, view in enumerate(views):
            codes = common.codes(view.game)
            for player in (0, 1):
                self._codes[number, player, : len(codes)] = codes[view.game.moves[player]]

    @cached_property
    def codes(self) -> np.ndarray:
        """The moves of the common board that any of the games has, ascending."""
        found = np.unique(self._codes)
        return found[found >= 0]

    def after(self, state: Any, action: int) -> Any:
        """The state after one of OpenSpiel's actions."""
        return state.child(action)

    def outcome(self, state: Any, player: int) -> float | None:
        """As `BoardView.outcome`."""
        return BoardView.outcome(state, player)

    def look(self, games: Sequence[int], states: Sequence[Any]) -> Positions:
        """What the players to move see in states of these games, none of which has ended."""
        game = np.asarray(games, np.int64)
        player = np.array([state.current_player() for state in states], np.int64)
        legal = [state.legal_actions() for state in states]
        count = np.array([len(each) for each in legal], np.int64)
        known = np.arange(self.most_moves) < count[:, None]
        actions = np.zeros(known.shape, np.int64)
        actions[known] = np.fromiter(chain.from_iterable(legal), np.int64, count=int(count.sum()))
        moves = np.where(known, self._codes[game[:, None], player[:, None], actions], -1)
        return Positions(game, player, self._cells(game, player, states), actions, moves, count)

    def _cells(self, game: np.ndarray, player: np.ndarray, states: Sequence[Any]) -> np.ndarray:
        cells = np.full((len(states), self.common.cells), OFF_BOARD, np.uint8)
        for number in np.unique(game).tolist():
            rows, view = np.flatnonzero(game == number), self.views[number]
            planes = view.planes_of([states[row] for row in rows.tolist()])
            for who in (0, 1):
                mine = player[rows] == who
                cells[rows[mine, None], self._slots[number]] = view.seen(planes[mine], who)
        return cells

    def moves_of(self, number: int, players: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(N,) what a model calls OpenSpiel's actions (N,) of these players (N,) in one game."""
        return self._codes[number, players, actions]

    def symmetries(self, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of a game, on the common board: (K,) which cell comes to lie at each, and (M + 1,) what
        each move is called afterwards. The last entry keeps -1 what it is.
        """
        game = self.views[number].game
        slots, codes = self._slots[number], self.common.codes(game)
        found = []
        for cells, moves in game.symmetries:
            place, name = np.arange(self.common.cells), np.append(np.arange(self.common.moves), -1)
            place[slots] = slots[cells]
            known = codes >= 0
            name[codes[known]] = codes[moves[known]]
            found.append((place, name))
        return found
