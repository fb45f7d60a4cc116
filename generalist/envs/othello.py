"""Othello on square boards of any even size, as a game of OpenSpiel's, which has 8x8 alone.

The rules are those of OpenSpiel's own Othello, which a test compares with these on 8x8: black
begins; who cannot move passes, by an action of its own; the game ends where neither can move, and
the most stones win.

A board is two integers with a bit for each cell, row by row from the top left. Sets of cells are
shifted as a whole, so finding all legal moves takes four axes times a few operations. OpenSpiel's
own search does not take rules in Python; `othello_search.py` has the same one for these.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyspiel

from generalist.envs.board_games import OWN_OTHELLO

_BLACK, _WHITE = 0, 1
_TYPE = pyspiel.GameType(
    short_name=OWN_OTHELLO,
    long_name="Othello of any even size",
    dynamics=pyspiel.GameType.Dynamics.SEQUENTIAL,
    chance_mode=pyspiel.GameType.ChanceMode.DETERMINISTIC,
    information=pyspiel.GameType.Information.PERFECT_INFORMATION,
    utility=pyspiel.GameType.Utility.ZERO_SUM,
    reward_model=pyspiel.GameType.RewardModel.TERMINAL,
    max_num_players=2,
    min_num_players=2,
    provides_information_state_string=True,
    provides_information_state_tensor=False,
    provides_observation_string=True,
    provides_observation_tensor=True,
    parameter_specification={"size": 8},
)


class OthelloRules:
    """Moves and what they turn, on a board of size x size cells; sets of cells are integers.

    Attributes:
        every: all cells.
        start: the first stones, black and white.
        first_moves: of black.
    """

    def __init__(self, size: int) -> None:
        self.every = (1 << size * size) - 1
        column = sum(1 << size * row for row in range(size))
        inside = self.every & ~(column | column << size - 1)
        # A line that is enclosed along a row or a diagonal has no stone in the outer columns. Kept
        # to the others, what leaves one edge never enters at the other.
        self._axes = [(1, inside), (size - 1, inside), (size, self.every), (size + 1, inside)]
        self._longer = range(size - 3)  # the longest line that is enclosed has size - 2 stones
        upper = size * (size // 2 - 1) + size // 2 - 1  # the left one of the middle's upper row
        # OpenSpiel's 8x8 begins with black on the rising diagonal.
        self.start = (
            (1 << upper + 1) | (1 << upper + size),
            (1 << upper) | (1 << upper + size + 1),
        )
        self.first_moves = self.moves(*self.start)

    def moves(self, mine: int, theirs: int) -> int:
        """The empty cells from which a line of theirs leads to one of mine."""
        found = 0
        for places, inside in self._axes:
            line = theirs & inside
            up, down = (mine << places) & line, (mine >> places) & line
            for _ in self._longer:
                up |= (up << places) & line
                down |= (down >> places) & line
            found |= up << places | down >> places
        return found & self.every & ~(mine | theirs)

    def turned(self, cell: int, mine: int, theirs: int) -> int:
        """The stones of theirs that a stone of mine at `cell`, a bit, encloses."""
        found = 0
        for places, inside in self._axes:
            line = theirs & inside
            passed, at = 0, cell << places
            while at & line:
                passed |= at
                at <<= places
            if at & mine:
                found |= passed
            passed, at = 0, cell >> places
            while at & line:
                passed |= at
                at >>= places
            if at & mine:
                found |= passed
        return found


@functools.cache
def othello_rules(size: int) -> OthelloRules:
    """The rules on a board of size x size cells."""
    return OthelloRules(size)


def cells_of(cells: int) -> list[int]:
    """The cells of a set, each as a set of its own, in ascending order."""
    found = []
    while cells:
        found.append(cells & -cells)
        cells &= cells - 1
    return found


class OthelloGame(pyspiel.Game):
    """Othello on a board of `size` x `size` cells. Action size * size passes."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self.size = int((params or {}).get("size", 8))
        cells = self.size**2
        info = pyspiel.GameInfo(
            num_distinct_actions=cells + 1,
            max_chance_outcomes=0,
            num_players=2,
            min_utility=-1.0,
            max_utility=1.0,
            utility_sum=0.0,
            max_game_length=2 * cells,
        )
        super().__init__(_TYPE, info, params or {})

    def new_initial_state(self, state: Any = None) -> OthelloState:
        """The four stones in the middle; black, player 0, is to move."""
        return OthelloState(self)

    def make_py_observer(self, iig_obs_type: Any = None, params: Any = None) -> OthelloObserver:
        """Planes of empty cells, black and white stones, as those of OpenSpiel's Othello."""
        return OthelloObserver(self.size)


class OthelloState(pyspiel.State):
    """The stones of both players as sets of cells, who is to move, and that player's moves."""

    def __init__(self, game: OthelloGame) -> None:
        super().__init__(game)
        # OpenSpiel copies a state by making a first one and copying all of these, so they are few.
        rules = othello_rules(game.size)
        self.size, self.stones, self.moves = game.size, rules.start, rules.first_moves
        self.mover, self.over = _BLACK, False

    def current_player(self) -> int:
        """0 black, 1 white."""
        return int(pyspiel.PlayerId.TERMINAL) if self.over else self.mover

    def _moves(self, player: int) -> int:
        return othello_rules(self.size).moves(self.stones[player], self.stones[1 - player])

    def _legal_actions(self, player: int) -> list[int]:
        moves = self.moves if player == self.mover else self._moves(player)
        return [cell.bit_length() - 1 for cell in cells_of(moves)] or [self.size**2]

    def _apply_action(self, action: int) -> None:
        me, other = self.mover, 1 - self.mover
        if action < self.size**2:
            cell = 1 << action
            turned = othello_rules(self.size).turned(cell, self.stones[me], self.stones[other])
            mine, theirs = self.stones[me] | cell | turned, self.stones[other] & ~turned
            self.stones = (mine, theirs) if me == _BLACK else (theirs, mine)
        self.mover = other
        self.moves = self._moves(other)
        self.over = not self.moves and not self._moves(me)

    def _action_to_string(self, player: int, action: int) -> str:
        if action == self.size**2:
            return "pass"
        row, column = divmod(action, self.size)
        return f"{chr(ord('a') + column)}{row + 1}"

    def is_terminal(self) -> bool:
        """True where neither can move."""
        return self.over

    def returns(self) -> list[float]:
        """1 for the one with more stones, -1 for the other; 0 each while the game goes on."""
        if not self.over:
            return [0.0, 0.0]
        more = self.stones[_BLACK].bit_count() - self.stones[_WHITE].bit_count()
        black = float((more > 0) - (more < 0))
        return [black, -black]

    def __str__(self) -> str:
        letters = ["-"] * self.size**2
        for player, letter in ((_BLACK, "x"), (_WHITE, "o")):
            for cell in range(self.size**2):
                if self.stones[player] >> cell & 1:
                    letters[cell] = letter
        size = self.size
        return "\n".join("".join(letters[row * size : (row + 1) * size]) for row in range(size))


class OthelloObserver:
    """Writes a state into `tensor`, (3 size size,) float32."""

    def __init__(self, size: int) -> None:
        self._cells, self._bytes = size**2, -(-(size**2) // 8)
        self.tensor = np.zeros(3 * self._cells, np.float32)
        self.dict = {"observation": self.tensor.reshape(3, size, size)}

    def set_from(self, state: OthelloState, player: int) -> None:
        """The planes are the same for both players."""
        planes = self.tensor.reshape(3, self._cells)
        for plane, cells in zip(planes[1:], state.stones, strict=True):
            packed = np.frombuffer(cells.to_bytes(self._bytes, "little"), np.uint8)
            plane[:] = np.unpackbits(packed, count=self._cells, bitorder="little")
        planes[0] = 1 - planes[1] - planes[2]

    def string_from(self, state: OthelloState, player: int) -> str:
        """The board as text."""
        return str(state)


pyspiel.register_game(_TYPE, OthelloGame)
