"""What is learned is what was played: symmetries keep moves at their cells, targets are reached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from generalist.envs.board_view import OFF_BOARD, Boards, BoardView, CommonBoard
from generalist.planning.tree import Positions
from generalist.training.selfplay.replay import Played, Replay
from generalist.training.selfplay.run import SelfplayRun
from generalist.training.selfplay.start import start
from tests.training.selfplay.test_run import recipe

pytest.importorskip("pyspiel")


def positions_of(boards: Boards, count: int) -> tuple[Positions, Played]:
    """Positions of random games, with random visits and outcomes."""
    random, games, states = np.random.default_rng(0), [], []
    while len(states) < count:
        game = len(states) % len(boards.views)
        view = boards.views[game]
        state = view.start()
        for _ in range(int(random.integers(5))):
            state = view.after(state, int(random.choice(view.legal(state))))
        games.append(game)
        states.append(state)
    seen = boards.look(games, states)
    visits = random.integers(1, 40, seen.moves.shape) * (seen.moves >= 0)
    played = Played(
        game=seen.game.astype(np.int16),
        cells=seen.cells,
        moves=seen.moves.astype(np.int16),
        visits=visits.astype(np.uint16),
        outcome=random.choice([-1.0, 0.0, 1.0], count).astype(np.float32),
        value=np.zeros(count, np.float32),
        full=np.ones(count, bool),
    )
    return seen, played


def test_turned_positions_have_their_moves_at_empty_cells() -> None:
    boards = Boards(
        [BoardView.named(name) for name in ("TicTacToe", "Gomoku-5x5", "Hex-3x3")], CommonBoard(6)
    )
    replay = Replay(boards, 100)
    _, played = positions_of(boards, 60)
    replay.add(played)
    drawn = replay.draw(400, 60, np.random.default_rng(1))
    for cells, moves in zip(drawn.cells, drawn.moves, strict=True):
        assert set(moves[moves >= 0]) == set(np.flatnonzero(cells == 0))
    # Each is one of those added, turned: the same stones, and visits that stay with their moves.
    stones = {tuple(np.bincount(row, minlength=OFF_BOARD + 1)) for row in played.cells}
    assert {tuple(np.bincount(row, minlength=OFF_BOARD + 1)) for row in drawn.cells} <= stones
    assert len(np.unique(drawn.cells, axis=0)) > len(np.unique(played.cells, axis=0))


def test_a_ring_keeps_the_newest_and_comes_back_from_its_state() -> None:
    boards = Boards([BoardView.named("TicTacToe")], CommonBoard(3))
    replay, again = Replay(boards, 50), Replay(boards, 50)
    for _ in range(3):
        replay.add(positions_of(boards, 20)[1])
    assert len(replay) == 50 and replay.seen == 60
    again.restore(replay.state(), replay.seen)
    one, other = (each.draw(30, 40, np.random.default_rng(2)) for each in (replay, again))
    assert np.array_equal(one.cells, other.cells) and np.array_equal(one.visits, other.visits)


def test_a_ring_of_another_size_draws_nothing_but_positions() -> None:
    boards = Boards([BoardView.named("TicTacToe")], CommonBoard(3))
    replay = Replay(boards, 50)
    for _ in range(3):
        replay.add(positions_of(boards, 20)[1])
    for capacity in (20, 200):
        other = Replay(boards, capacity)
        other.restore(replay.state(), replay.seen)
        assert len(other) == min(50, capacity)
        other.add(positions_of(boards, 20)[1])
        assert len(other) == min(70, capacity)
        assert other.draw(500, 100, np.random.default_rng(0)).visits.any(axis=1).all()


def test_a_network_reaches_the_targets_of_a_few_positions(tmp_path: Path) -> None:
    settings = recipe(tmp_path, learning={"value_from_search": 0.0}, optimizer={"lr": 0.01})
    parts = start(settings)
    run = SelfplayRun(settings, parts)
    seen, played = positions_of(parts.boards, 8)
    first = run.learner.learn(played, 0.0)
    for _ in range(150):
        last = run.learner.learn(played, 0.0)
    assert last[0] < 0.05 < first[0] and last[1] < 0.2 < first[1]
    priors, values = parts.judge.judge(seen)
    wanted = played.visits / played.visits.sum(axis=1, keepdims=True)
    # Two of the positions may be the same, with other targets.
    unique = [
        np.sum((seen.cells == row).all(axis=1) & (seen.game == game)) == 1
        for row, game in zip(seen.cells, seen.game, strict=True)
    ]
    assert np.abs(priors - wanted)[unique].max() < 0.1
    assert np.abs(values - played.outcome)[unique].max() < 0.1
