"""PUCT: what it finds, and that games do not disturb each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from generalist.envs.board_view import Boards, BoardView, CommonBoard
from generalist.planning.tree import Found, Positions, RootNoise, TreeSearch

pytest.importorskip("pyspiel")


class Guess:
    """Judges by a fixed pseudo-random function of the cells, row by row."""

    def __init__(self) -> None:
        self.weights = np.random.default_rng(0).normal(size=(81, 1024)).astype(np.float32)
        self.asked = 0

    def judge(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        self.asked += len(positions.cells)
        pairs = [self._one(*row) for row in zip(positions.cells, positions.moves, strict=True)]
        return np.stack([p for p, _ in pairs]), np.array([v for _, v in pairs], np.float32)

    def _one(self, cells: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, float]:
        logits = (cells @ self.weights)[moves] / 9
        prior = np.exp(logits - logits.max()) * (moves >= 0)
        return (prior / prior.sum()).astype(np.float32), float(np.tanh(logits[0] / 5))


class Indifferent:
    """Knows nothing: all moves alike, all values 0."""

    def judge(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        legal = positions.moves >= 0
        return (legal / legal.sum(axis=1, keepdims=True)).astype(np.float32), np.zeros(
            len(legal), np.float32
        )


@pytest.fixture(scope="module")
def boards() -> Boards:
    names = ["TicTacToe", "ConnectFour-4x5", "Hex-5x5", "Breakthrough-5x5"]
    return Boards([BoardView.named(name) for name in names], CommonBoard(9))


def played(view: BoardView, moves: list[int]) -> Any:
    state = view.start()
    for move in moves:
        state = view.after(state, move)
    return state


def random_states(boards: Boards, count: int) -> tuple[list[int], list[Any]]:
    rng, games, states = np.random.default_rng(1), [], []
    while len(states) < count:
        number = len(states) % len(boards.views)
        view = boards.views[number]
        state = view.start()
        for _ in range(int(rng.integers(4))):
            state = view.after(state, int(rng.choice(view.legal(state))))
        games.append(number)
        states.append(state)
    return games, states


def best_action(found: Found, row: int = 0) -> int:
    return int(found.positions.actions[row, found.best()[row]])


@pytest.mark.parametrize(
    ("moves", "wins"),
    [
        ([0, 3, 1, 4], {2}),  # completes the row at once
        ([0, 4, 8, 1, 7], {6}),  # the second player has to stop the row
        ([0, 1, 4], {8}),  # the second player has to stop the diagonal
    ],
)
def test_it_wins_at_once_and_stops_what_would_lose(
    boards: Boards, moves: list[int], wins: set[int]
) -> None:
    state = played(boards.views[0], moves)
    found = TreeSearch(boards, Indifferent()).search([0], [state], 200)
    assert best_action(found) in wins


def test_it_finds_a_win_in_two(boards: Boards) -> None:
    # x has a corner and the middle: at 3 and at 6 it threatens two rows at once.
    state = played(boards.views[0], [0, 1, 4, 8])
    found = TreeSearch(boards, Indifferent()).search([0], [state], 600)
    assert best_action(found) in {3, 6} and found.values[0] > 0.8
    # Connect Four: two stones side by side, free on both sides; a third makes two threats.
    view = boards.views[1]
    state = played(view, [1, 1, 2, 2])
    found = TreeSearch(boards, Indifferent()).search([1], [state], 1500)
    assert best_action(found) == 3 and found.values[0] > 0.5


def test_one_simulation_takes_the_likeliest_move(boards: Boards) -> None:
    games, states = random_states(boards, 24)
    judge = Guess()
    found = TreeSearch(boards, judge).search(games, states, 1)
    priors, _ = judge.judge(boards.look(games, states))
    assert np.array_equal(found.best(), priors.argmax(axis=1))
    assert np.array_equal(found.visits.argmax(axis=1), priors.argmax(axis=1))


def test_games_in_step_equal_single_games_bitwise(boards: Boards) -> None:
    games, states = random_states(boards, 12)
    together = TreeSearch(boards, Guess()).search(games, states, 40)
    for row, (game, state) in enumerate(zip(games, states, strict=True)):
        alone = TreeSearch(boards, Guess()).search([game], [state], 40)
        assert np.array_equal(alone.visits[0], together.visits[row])
        assert alone.values[0] == together.values[row]
    assert (together.visits.sum(axis=1) == 40).all() and (abs(together.values) <= 1).all()


def test_what_was_judged_is_remembered_until_forgotten(boards: Boards) -> None:
    games, states = random_states(boards, 4)
    judge = Guess()
    search = TreeSearch(boards, judge)
    first = search.search(games, states, 20)
    before = judge.asked
    assert np.array_equal(search.search(games, states, 20).visits, first.visits)
    assert judge.asked == before == search.judged and search.asked > search.judged
    search.forget()
    search.search(games, states, 20)
    assert judge.asked > before


def test_players_of_a_mirrored_board_are_not_mistaken_for_each_other(boards: Boards) -> None:
    # In Hex the second player sees the board transposed, and so names its moves otherwise.
    view = boards.views[2]
    first, second = played(view, [7, 3]), played(view, [7, 3, 12])
    search = TreeSearch(boards, Guess())
    for state in (first, second, first):
        found = search.search([2], [state], 30)
        alone = TreeSearch(boards, Guess()).search([2], [state], 30)
        assert np.array_equal(found.visits, alone.visits)


def test_noise_changes_priors_of_legal_moves_alone() -> None:
    priors = np.zeros((500, 6), np.float32)
    priors[:, 0] = 1
    count = np.full(500, 4)
    mixed = RootNoise(0.25, 10.0, np.random.default_rng(0)).mixed(priors, count)
    assert (mixed[:, 4:] == 0).all() and np.allclose(mixed.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(mixed.mean(axis=0)[:4], [0.8125, 0.0625, 0.0625, 0.0625], atol=0.01)
