"""Moves in words: every legal move has a name of its own, and is read back."""

from __future__ import annotations

import numpy as np
import pytest

from generalist.envs.board_moves import board_text, move_names, read_move
from generalist.envs.board_view import BoardView
from generalist.errors import UsageError

pytest.importorskip("pyspiel")


@pytest.mark.parametrize(
    "name", ["TicTacToe", "ConnectFour-4x5", "Othello-6x6", "Hex-3x3", "Breakthrough-5x5"]
)
def test_every_legal_move_is_read_back_from_its_name(name: str) -> None:
    view, random = BoardView.named(name), np.random.default_rng(0)
    names = move_names(view.game)
    for _ in range(5):
        state = view.start()
        while not state.is_terminal():
            legal = view.legal(state)
            assert [read_move(view.game, names[move].upper(), legal) for move in legal] == [*legal]
            state = view.after(state, int(random.choice(legal)))


def test_names_say_where_a_move_goes_on_the_board_that_is_shown() -> None:
    view = BoardView.named("Breakthrough-5x5")
    state = view.start()
    for typed in ("b1c2", "d1-d2"):  # both players go down the board as they see it
        mover = view.mover(state)
        state = view.after(state, read_move(view.game, typed, view.legal(state)))
        lines = board_text(view.game, view.cells(state, mover)).splitlines()
        column = lines[0].index(typed[-2])
        assert lines[2][column] == "x" and lines[1][lines[0].index(typed[0])] == "."
    hexagons = board_text(BoardView.named("Hex-3x3").game, np.array([[0, 1, 2]] * 3))
    assert hexagons.splitlines() == ["  a b c", "1 . x o", "2  . x o", "3   . x o"]


def test_what_is_no_move_is_refused_in_words() -> None:
    view = BoardView.named("ConnectFour-4x5")
    state = view.start()
    for _ in range(4):
        state = view.after(state, 1)
    with pytest.raises(UsageError, match=r"^b is not legal now. Legal: a, c, d, e\.$"):
        read_move(view.game, "b", view.legal(state))
    for typed in ("", "z", "b1"):
        with pytest.raises(UsageError, match="is no move here"):
            read_move(view.game, typed, view.legal(state))
