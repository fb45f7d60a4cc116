"""The search in Othello by rules of our own: proven play is perfect, and it beats random moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from generalist.envs.board_opponents import search
from generalist.envs.board_view import BoardView

pytest.importorskip("pyspiel")


def best_outcome(state: Any, player: int) -> int:
    """What a player gets where both play perfectly."""
    if state.is_terminal():
        return int(state.returns()[player])
    found = [best_outcome(state.child(move), player) for move in state.legal_actions()]
    return max(found) if state.current_player() == player else min(found)


def late_positions(empty: int, count: int) -> list[Any]:
    """Positions of random games with so many empty cells, some of them with a pass to make."""
    random, view, found = np.random.default_rng(0), BoardView.named("Othello-6x6"), []
    while len(found) < count:
        state = view.start()
        while not state.is_terminal() and str(state).count("-") > empty:
            state = state.child(int(random.choice(state.legal_actions())))
        if not state.is_terminal():
            found.append(state)
    return found


def test_late_in_a_game_the_best_outcome_is_found() -> None:
    kept = 0
    for state in late_positions(empty=5, count=12):
        player, before = state.current_player(), str(state)
        move = search(state, 600, 3)
        wanted = best_outcome(state, player)
        assert best_outcome(state.child(move), player) == wanted
        assert str(state) == before and search(state, 600, 3) == move
        others = {best_outcome(state.child(each), player) for each in state.legal_actions()}
        kept += len(others) > 1
    assert kept >= 3  # where a worse move was there to be made


def test_a_player_who_cannot_move_passes() -> None:
    random, view = np.random.default_rng(1), BoardView.named("Othello-6x6")
    passes = 0
    while passes < 3:
        state = view.start()
        while not state.is_terminal():
            legal = state.legal_actions()
            if legal == [36]:
                passes += 1
                assert search(state, 5, passes) == 36
            state = state.child(int(random.choice(legal)))


def test_it_beats_random_moves_with_either_colour() -> None:
    random, view, won = np.random.default_rng(2), BoardView.named("Othello-6x6"), 0.0
    for game in range(10):
        state, mine = view.start(), game % 2
        while not state.is_terminal():
            if state.current_player() == mine:
                move = search(state, 30, game)
            else:
                move = int(random.choice(state.legal_actions()))
            state = state.child(move)
        won += state.returns()[mine]
    assert won >= 4  # of 10, a loss is -1
