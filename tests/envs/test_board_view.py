"""Boards as games of two: rules, symmetries and the common board, on random games."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from generalist.envs import make
from generalist.envs.board_games import find_game
from generalist.envs.board_view import OFF_BOARD, Boards, BoardView, CommonBoard
from generalist.errors import UsageError

pyspiel = pytest.importorskip("pyspiel")

NAMES = [
    "TicTacToe", "ConnectFour-4x5", "ConnectFour-6x7", "Gomoku-7x7", "Hex-5x5", "Othello",
    "Othello-6x6", "Breakthrough-5x5", "Breakthrough-6x6",
]  # fmt: skip


def random_game(view: BoardView, seed: int) -> Iterator[tuple[Any, int]]:
    """The states of a game of random moves, each with the move that follows; -1 at the end."""
    rng, state = np.random.default_rng(seed), view.start()
    while not state.is_terminal():
        move = int(rng.choice(view.legal(state)))
        yield state, move
        state = view.after(state, move)
    yield state, -1


@pytest.mark.parametrize("name", NAMES)
def test_states_are_pure_and_no_position_has_more_moves_than_stated(name: str) -> None:
    view = BoardView.named(name)
    for seed in range(3):
        for state, move in random_game(view, seed):
            before = state.history()
            if move < 0:
                outcomes = [view.outcome(state, player) for player in (0, 1)]
                assert outcomes[0] == -outcomes[1] and outcomes[0] in (-1.0, 0.0, 1.0)
                assert len(before) <= view.game.longest
                continue
            assert view.outcome(state, 0) is None
            assert len(view.legal(state)) <= view.game.most_moves
            after = view.after(state, move)
            assert state.history() == before and after.history()[:-1] == before


@pytest.mark.parametrize("name", NAMES)
def test_symmetries_commute_with_moves(name: str) -> None:
    view = BoardView.named(name)
    game = view.game
    first = game.cells[0]
    for cells, moves in game.symmetries:
        # The same turn of the board as the second player sees it, and of that player's moves.
        turned = np.empty_like(first)
        turned[first] = first[cells]  # OpenSpiel's cell that comes to lie at each of its cells
        place = np.argsort(game.cells[1])
        seconds = place[turned[game.cells[1]]]
        names = [moves, _same_turn(game, seconds)]
        for seed in range(2):
            mirrored = view.start()
            for state, move in random_game(view, seed):
                for player, order in ((0, cells), (1, seconds)):
                    expected = view.cells(state, player)[order]
                    assert np.array_equal(view.cells(mirrored, player), expected)
                if move >= 0:
                    name_of = names[view.mover(state)]
                    assert set(view.legal(mirrored)) == set(name_of[view.legal(state)])
                    mirrored = view.after(mirrored, int(name_of[move]))
            assert mirrored.returns() == state.returns()


def _same_turn(game: Any, cells: np.ndarray) -> np.ndarray:
    """What moves are called after a turn of the cells, one of the game's own symmetries."""
    return next(moves for own, moves in game.symmetries if np.array_equal(own, cells))


def test_othello_of_our_own_is_openspiels_on_8x8() -> None:
    theirs = BoardView.named("Othello")
    own = pyspiel.load_game("generalist_othello(size=8)")
    for seed in range(20):
        state = own.new_initial_state()
        for expected, move in random_game(theirs, seed):
            assert str(state) == "".join(
                line[2:].replace(" ", "")[:8] + "\n" for line in str(expected).splitlines()[2:10]
            ).rstrip("\n")
            assert state.is_terminal() == expected.is_terminal()
            assert state.returns() == expected.returns()
            if move >= 0:
                assert state.current_player() == expected.current_player()
                assert state.legal_actions() == expected.legal_actions()
                state = state.child(int(theirs.game.moves[theirs.mover(expected)][move]))


def test_small_othello_is_a_task_and_its_opponent_searches() -> None:
    env = make("board/Othello-6x6", opponent="mcts@4", side="second")
    observation, info = env.reset(seed=1)
    assert observation.shape == (6, 6) and (observation > 0).sum() == 5
    env.step(int(np.flatnonzero(info["action_mask"])[0]))
    with pytest.raises(UsageError, match="even number of rows, such as 8x8"):
        find_game("Othello-7x7")


@pytest.mark.parametrize("name", NAMES)
def test_positions_on_the_common_board(name: str) -> None:
    views = [BoardView.named("Gomoku-9x9"), BoardView.named(name)]
    common = CommonBoard(9)
    boards = Boards(views, common)
    slots = common.slots(views[1].game.rows, views[1].game.columns)
    codes = common.codes(views[1].game)
    pairs = [(state, move) for state, move in random_game(views[1], 5) if move >= 0]
    states = [state for state, _ in pairs]
    seen = boards.look([1] * len(states), states)
    for row, state in enumerate(states):
        assert np.array_equal(seen.cells[row, slots], views[1].cells(state))
        assert (np.delete(seen.cells[row], slots) == OFF_BOARD).all()
        own = seen.moves[row, : seen.count[row]]
        assert set(own) == set(codes[views[1].legal(state)])
        assert (seen.moves[row, seen.count[row] :] == -1).all() and set(own) <= set(boards.codes)
        assert seen.player[row] == state.current_player()
    place, name_of = boards.symmetries(1)[0]
    assert np.array_equal(place, np.arange(81)) and name_of[-1] == -1


def test_a_common_board_that_is_too_large_or_too_small_is_refused() -> None:
    assert CommonBoard(12).moves <= 1024
    with pytest.raises(UsageError, match="at most 12 rows"):
        CommonBoard(13)
    with pytest.raises(UsageError, match="does not fit"):
        CommonBoard(5).slots(6, 7)
    with pytest.raises(UsageError, match="There is no board 'Chess'"):
        BoardView.named("Chess")


def test_a_view_crosses_processes() -> None:
    view = pickle.loads(pickle.dumps(BoardView.named("Hex-5x5")))
    assert view.cells(view.start()).tolist() == [0] * 25
