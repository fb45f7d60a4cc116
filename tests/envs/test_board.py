"""Board games: what the agent sees and may do, from either side, against its opponent."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest

from generalist.envs import get_task, list_tasks, make
from generalist.envs.board import REGISTERED, BoardEnv
from generalist.envs.board_picture import _STONES
from generalist.errors import GeneralistError, MissingPackageError, UsageError
from generalist.policy import Decision
from generalist.tokenization.processor import GeneralistProcessor

NAMES = [f"board/{name}" for name in REGISTERED]
BOTH_SIDES = [(name, side) for name in NAMES for side in ("first", "second")]


def start(name: str, seed: int = 0, **options: object) -> tuple[BoardEnv, np.ndarray]:
    """A game against random moves, and the first observation."""
    env = make(name, **{"opponent": "random", **options})
    observation, _ = env.reset(seed=seed)
    return env, observation


def play(env: BoardEnv, seed: int) -> tuple[list[np.ndarray], float]:
    """Random moves drawn from the mask, to the end: observations and the last reward."""
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    seen, reward, over = [observation], 0.0, False
    while not over:
        assert reward == 0.0
        action = env.action_space.sample(info["action_mask"])
        observation, reward, over, truncated, info = env.step(action)
        assert not truncated
        seen.append(observation)
    assert not info["action_mask"].any()
    return seen, reward


def printed(env: BoardEnv) -> list[str]:
    """The pieces as OpenSpiel prints them, a letter a cell: an independent source."""
    lines = [re.sub(r"^[ \d]*", "", line) for line in str(env.state).splitlines()]
    rows, columns = env.observation_space.shape
    lines = ["".join(re.findall(r"[.\-xobw]", line)) for line in lines]
    boards = [lines[i : i + rows] for i in range(len(lines) - rows + 1)]
    return next(b for b in boards if all(len(line) == columns for line in b))


@pytest.mark.parametrize(("name", "side"), BOTH_SIDES)
def test_cells_are_those_of_openspiel(name: str, side: str) -> None:
    env, observation = start(name, side=side)
    rng = np.random.default_rng(0)
    for _ in range(12):
        assert env.observation_space.contains(observation)
        letters = {".": 0, "-": 0, "x": 1, "b": 1, "o": 2, "w": 2}  # x and black begin
        players = np.array([[letters[letter] for letter in line] for line in printed(env)])
        if side == "second":
            players = np.array([0, 2, 1])[players]
            turned = {"Hex": players.T, "Breakthrough": players[::-1], "Othello": players[:, ::-1]}
            players = turned.get(name[6:].partition("-")[0], players)
        assert np.array_equal(observation, players)
        observation, _, over, _, _ = env.step(rng.choice(env.legal()))
        if over:
            break


@pytest.mark.parametrize(("name", "side"), BOTH_SIDES)
def test_the_mask_is_what_openspiel_allows(name: str, side: str) -> None:
    env, _ = start(name, side=side)
    observation, info = env.reset(seed=1)
    assert env.action_space.n == env.state.num_distinct_actions()
    assert info["side"] == side and info["action_mask"].dtype == np.int8
    rng = np.random.default_rng(1)
    over = False
    while not over:
        legal = np.flatnonzero(info["action_mask"])
        assert sorted(env.translate(a) for a in legal) == env.state.legal_actions()
        assert [env.translate(env.translate(a)) for a in legal] == list(legal)
        observation, _, over, _, info = env.step(rng.choice(legal))


@pytest.mark.parametrize("name", NAMES)
def test_either_player_begins_from_the_same_board(name: str) -> None:
    env, first = start(name, side="first")
    env.player = 1
    assert np.array_equal(env.cells(), first)


@pytest.mark.parametrize("name", NAMES)
def test_the_step_limit_is_openspiels(name: str) -> None:
    env, _ = start(name)
    longest = env.state.get_game().max_game_length()
    assert get_task(name).max_steps == -(-longest // 2)


@pytest.mark.parametrize(("name", "side"), BOTH_SIDES)
def test_the_opponent_is_a_policy_that_sees_the_board_from_its_own_side(
    name: str, side: str
) -> None:
    """It is shown what the agent would be shown in its place, and plays as the agent would."""
    from generalist.experts import RandomPolicy

    class Seeing(RandomPolicy):
        def begin(self, slots: Any, seeds: Any, infos: Any) -> None:
            super().begin(slots, seeds, infos)
            assert slots == [0] and infos[0]["side"] != side
            begun.append(seeds[0])

        def decide(self, observations: Any, infos: Any, slots: Any) -> Any:
            other = make(name, side="second" if side == "first" else "first")
            other.reset(seed=0)
            other.state = env.state  # the same game, asked for by the other player
            assert np.array_equal(observations[0], other.cells())
            assert np.array_equal(np.flatnonzero(infos[0]["action_mask"]), other.legal())
            decision = super().decide(observations, infos, slots)
            moves.append(other.translate(int(decision.actions[0])))
            return decision

    begun: list[int] = []
    moves: list[int] = []
    env = make(name, side=side, opponent=lambda board: Seeing(board.action_space))
    rng = np.random.default_rng(1)
    env.reset(seed=3)
    over = False
    for _ in range(6):
        if over:
            break
        _, _, over, _, _ = env.step(rng.choice(env.legal()))
    history = env.state.full_history()
    assert moves == [move.action for move in history if move.player != env.player]
    assert len(begun) == 1


def test_an_opponent_that_breaks_the_rules_is_said() -> None:
    class Illegal:
        def begin(self, slots: Any, seeds: Any, infos: Any) -> None: ...

        def decide(self, observations: Any, infos: Any, slots: Any) -> Decision:
            return Decision(actions=np.flatnonzero(infos[0]["action_mask"] == 0)[:1])

        def end(self, slots: Any) -> None: ...

    env = make("board/TicTacToe", side="first", opponent=lambda board: Illegal())
    env.reset(seed=0)
    with pytest.raises(GeneralistError, match="opponent's action . is not legal"):
        env.step(4)


@pytest.mark.parametrize("side", ["first", "second"])
def test_breakthrough_always_goes_down(side: str) -> None:
    env, observation = start("board/Breakthrough-6x6", side=side)
    assert (observation[:2] == 1).all() and (observation[2:4] != 1).all()
    rng = np.random.default_rng(2)
    over = False
    while not over:
        action = rng.choice(env.legal())
        row, column, player, way, capture = np.unravel_index(action, (6, 6, 2, 3, 2))
        assert observation[row, column] == 1 and player == 0
        assert observation[row + 1, column + way - 1] == (2 if capture else 0)
        observation, reward, over, _, _ = env.step(action)
        assert observation[row, column] != 1
    if reward == 1 and (observation == 2).any():
        assert (observation[-1] == 1).any()


def connects_top_and_bottom(cells: np.ndarray) -> bool:
    """Whether the agent's stones do, over Hex's six neighbours."""
    reached = {(0, c) for c in range(cells.shape[1]) if cells[0, c] == 1}
    waiting = list(reached)
    while waiting:
        row, column = waiting.pop()
        for down, right in ((-1, 0), (-1, 1), (0, 1), (1, 0), (1, -1), (0, -1)):
            cell = row + down, column + right
            inside = all(0 <= at < size for at, size in zip(cell, cells.shape, strict=True))
            if inside and cell not in reached and cells[cell] == 1:
                reached.add(cell)
                waiting.append(cell)
    return any(row == len(cells) - 1 for row, _ in reached)


@pytest.mark.parametrize("side", ["first", "second"])
def test_hex_is_won_from_top_to_bottom(side: str) -> None:
    env, _ = start("board/Hex-5x5", side=side)
    games = [play(env, seed) for seed in range(20)]
    rewards = {reward for _, reward in games}
    assert rewards == {1.0, -1.0}
    for seen, reward in games:
        assert connects_top_and_bottom(seen[-1]) == (reward == 1.0)


def test_connect_four_fills_from_the_bottom() -> None:
    env, _ = start("board/ConnectFour-4x5", side="first")
    observation, *_ = env.step(2)
    assert observation[3, 2] == 1 and (observation == 1).sum() == 1


@pytest.mark.parametrize("name", ["board/TicTacToe", "board/ConnectFour-4x5", "board/Hex-5x5"])
def test_a_seed_is_a_game(name: str) -> None:
    env = make(name)
    seen, reward = play(env, 3)
    again, same = play(make(name), 3)
    assert reward == same and np.array_equal(seen, again)
    env.reset(seed=4)
    openings = {play(env, seed)[0][1].tobytes() for seed in range(10)}
    assert len(openings) > 3


def test_the_side_is_drawn_from_the_seed() -> None:
    env = make("board/TicTacToe")
    sides = [env.reset(seed=seed)[1]["side"] for seed in range(40)]
    assert sides == [env.reset(seed=seed)[1]["side"] for seed in range(40)]
    assert 10 < sides.count("first") < 30


def test_the_opponent_is_as_good_as_it_says() -> None:
    def score(**options: str) -> float:
        env = make("board/Hex-5x5", **options)
        return float(np.mean([play(env, seed)[1] for seed in range(40)]))

    against_random, against_search = score(opponent="random"), score()
    assert abs(against_random) < 0.5 and against_search < -0.6


@pytest.mark.parametrize("action", [-1, 9, 4])
def test_an_illegal_action_is_refused_and_changes_nothing(action: int) -> None:
    env, _ = start("board/TicTacToe", side="first")
    env.step(4)
    before = str(env.state)
    with pytest.raises(GeneralistError, match=f"Action {action} is not legal"):
        env.step(action)
    assert str(env.state) == before
    play(env, 0)
    with pytest.raises(GeneralistError, match="not legal"):
        env.step(0)  # after the end


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("board/Breakthrough-10x10", ["1,200 actions", "1,024"]),
        ("board/Hex-5x6", ["square", "6x6"]),
        ("board/ConnectFour-3x9", ["from 4 to 32"]),
        ("board/Gomoku-40x40", ["from 5 to 32"]),
        ("board/Othelo", ["board/Othello"]),
        ("board/ConnectFour", ["board/ConnectFour-"]),
        ("board/TicTacToe-3x3", ["board/TicTacToe"]),
        ("board/Othello-8x8", ["board/Othello"]),
        ("board/Othello-7x7", ["even number of rows", "8x8"]),
    ],
)
def test_a_board_that_cannot_be_is_refused_with_the_reason(name: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        get_task(name)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("name", ["board/Hex-4x4", "board/ConnectFour-7x5", "board/Gomoku-32x32"])
def test_boards_of_other_sizes_need_no_registration(name: str) -> None:
    env, observation = start(name)
    assert observation.shape == tuple(map(int, re.findall(r"\d+", name)))
    assert env.state.num_distinct_actions() == env.action_space.n
    env.step(env.legal()[-1])


def test_options_that_do_not_exist_are_refused() -> None:
    for opponent in ("stockfish", "mcts", "mcts@0", "mcts@many"):
        with pytest.raises(UsageError, match="'mcts@N'"):
            make("board/TicTacToe", opponent=opponent)
    with pytest.raises(UsageError, match="'second'"):
        make("board/TicTacToe", side="black")


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_a_token_and_so_is_a_move(name: str) -> None:
    env, observation = start(name)
    layout = GeneralistProcessor.default().layout(env.observation_space, env.action_space)
    assert len(layout.positions.of_role("observation")) == observation.size
    assert len(layout.legal) == 1


def test_boards_are_drawn() -> None:
    for name in ("board/Hex-11x11", "board/Gomoku-9x9", "board/TicTacToe"):
        env, _ = start(name, render_mode="rgb_array", side="first")
        empty = env.render()
        env.step(env.legal()[0])
        drawn = env.render()
        assert drawn.dtype == np.uint8 and drawn.shape == empty.shape and drawn.shape[2] == 3
        assert 240 <= drawn.shape[0] <= 400
        mine, theirs = ((drawn == colour).all(-1).sum() for colour in _STONES.values())
        assert mine == theirs > 100
    env, _ = start("board/TicTacToe", render_mode="ansi", side="first")
    env.step(0)
    assert env.render()[0] == "x" and env.render().count("o") == 1


def test_without_the_extra_tasks_are_listed_and_making_one_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    assert [task.name for task in list_tasks("board")] == NAMES
    with pytest.raises(MissingPackageError, match=r"\[boards\]"):
        make("board/TicTacToe")
