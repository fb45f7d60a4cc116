"""Board games over OpenSpiel, each a task of one agent against a stated opponent.

A step is the agent's move and the opponent's answer. The agent sees the board from its own side:
its pieces are "mine" whichever player it is. Where the players go different ways (Hex,
Breakthrough), it always goes the first player's.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs.board_games import EMPTY, THEIRS, BoardGame, agent_steps, find_game
from generalist.envs.board_opponents import MakeOpponent, opponent_named
from generalist.envs.board_picture import draw_board
from generalist.envs.board_view import BoardView, Position
from generalist.envs.registry import Task
from generalist.errors import GeneralistError, UsageError

REGISTERED = {
    "TicTacToe": "three in a row",
    "ConnectFour-4x5": "four in a row of stones that fall, on a small board",
    "ConnectFour-5x5": "four in a row of stones that fall, on a small board",
    "ConnectFour-6x7": "four in a row of stones that fall",
    "ConnectFour-8x8": "four in a row of stones that fall, on a large board",
    "Gomoku-7x7": "five in a row, on a small board",
    "Gomoku-9x9": "five in a row",
    "Gomoku-11x11": "five in a row, on a large board",
    "Othello": "enclose the other's stones to turn them; the most stones win",
    "Hex-5x5": "connect top and bottom, on a small board",
    "Hex-7x7": "connect top and bottom",
    "Hex-9x9": "connect top and bottom, on a larger board",
    "Hex-11x11": "connect top and bottom, on the usual board",
    "Breakthrough-5x5": "bring a piece across; pieces take diagonally; one row of them each",
    "Breakthrough-6x6": "bring a piece across; pieces take diagonally",
    "Breakthrough-8x8": "bring a piece across; pieces take diagonally, on the usual board",
}

Side = Literal["first", "second"]
SIDES = ("first", "second")


def names() -> list[str]:
    """The registered boards; others are found by their size, such as `Hex-8x8`."""
    return list(REGISTERED)


def find(name: str) -> Task | None:
    """The task of a game and a board; None for an unknown game.

    Raises UsageError for a board on which the game cannot be played here.
    """
    game = find_game(name)
    if game is None:
        return None
    return Task(
        name=f"board/{name}",
        family="board",
        make=functools.partial(_make, name),
        step_limit=agent_steps(game),
        description=f"{REGISTERED.get(name, name)}; against {default_opponent(game)}",
        default_expert="mcts",
    )


def default_opponent(game: BoardGame) -> str:
    """A search with as many simulations a move as the board has cells.

    It wins most games against random moves on any board, and loses most to a search with many more
    simulations.
    """
    return f"mcts@{game.rows * game.columns}"


def _make(
    name: str,
    *,
    render_mode: str | None = None,
    opponent: str | MakeOpponent | None = None,
    side: Side | None = None,
    max_steps: int | None = None,
) -> gymnasium.Env:
    """The game against `opponent`; the agent is the player `side`, or either by the seed.

    max_steps: moves of the agent after which the game is broken off, undecided.
    """
    game = find_game(name)
    assert game is not None
    opponent = opponent or default_opponent(game)
    env = BoardEnv(game, opponent, side=side, render_mode=render_mode)
    return env if max_steps is None else gymnasium.wrappers.TimeLimit(env, max_steps)


def defaults(name: str) -> dict[str, Any]:
    """The opponent that is played where none is given."""
    game = find_game(name)
    assert game is not None
    return {"opponent": default_opponent(game)}


def board_spaces(game: BoardGame) -> tuple[spaces.Box, spaces.Discrete]:
    """Observation and action space of a board game for one player."""
    cells = spaces.Box(EMPTY, THEIRS, (game.rows, game.columns), np.uint8)
    return cells, spaces.Discrete(game.actions)


class BoardEnv(gymnasium.Env):
    """A board game for one player.

    Observations: (rows, columns) uint8, each cell 0 empty, 1 mine, 2 theirs.
    Actions: Discrete, an id of OpenSpiel's as the agent's side sees it. `info["action_mask"]`, (n,)
        int8, is 1 where it is legal, at reset and after every step. An illegal one raises
        GeneralistError and changes nothing. `info["position"]`, a `Position`, lets a policy that
        knows the rules search from there.
    Rewards: 1 for a game won, -1 for one lost, 0 for a draw and while it goes on.

    Args:
        game: The game and its board.
        opponent: `random`, or `mcts@N`: a search of N simulations a move; or what makes the policy
            that plays against the agent. The policy sees the board and its legal moves as the agent
            does, told from its own side. Its seed follows from the episode's.
        side: `first` or `second`; None draws it from the episode's seed. `info["side"]` says which.
        render_mode: `ansi`, `rgb_array` or None.

    Raises:
        MissingPackageError: OpenSpiel is missing.
        UsageError: There is no such side or opponent.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}

    def __init__(
        self,
        game: BoardGame,
        opponent: str | MakeOpponent,
        *,
        side: Side | None,
        render_mode: str | None,
    ) -> None:
        if side not in (None, *SIDES):
            raise UsageError(f"side is 'first' or 'second', or not given, got {side!r}.")
        self._rules, self._side = game, side
        self.view = BoardView(game)
        self.state = self.view.start()
        self.player = 0
        self.render_mode = render_mode
        self.observation_space, self.action_space = board_spaces(game)
        make_opponent = opponent_named(opponent) if isinstance(opponent, str) else opponent
        self._opponent = make_opponent(self)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new game, in which the opponent has moved if it is the first player."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2))
        self.player = drawn if self._side is None else SIDES.index(self._side)
        opponent_seed = int(self.np_random.integers(2**30))
        self.state = self.view.start()
        other = 1 - self.player
        self._opponent.begin([0], [opponent_seed], [{"side": SIDES[other]}])
        self._answer()
        return self.cells(), {**self._info(), "side": SIDES[self.player]}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """The agent's move, and the opponent's answer if the game goes on."""
        move = self.translate(int(action)) if 0 <= action < self._rules.actions else -1
        if move not in self.state.legal_actions():
            raise GeneralistError(
                f"Action {action} is not legal here; legal are {self.legal().tolist()} "
                '(info["action_mask"]).'
            )
        self.state.apply_action(move)
        self._answer()
        over = self.state.is_terminal()
        reward = float(self.state.returns()[self.player]) if over else 0.0
        return self.cells(), reward, over, False, self._info()

    def translate(self, action: int, player: int | None = None) -> int:
        """An action told from a player's side as OpenSpiel's, and the other way round.

        player: 0 or 1; None is the agent.
        """
        return int(self._rules.moves[self._side_of(player)][action])

    def legal(self, player: int | None = None) -> np.ndarray:
        """The legal actions in ascending order, told from a player's side; none at the end."""
        return self.view.legal(self.state, self._side_of(player))

    def cells(self, player: int | None = None) -> np.ndarray:
        """The board from a player's side: (rows, columns) uint8, 0 empty, 1 mine, 2 theirs."""
        seen = self.view.cells(self.state, self._side_of(player))
        return seen.reshape(self._rules.rows, self._rules.columns)

    def _side_of(self, player: int | None) -> int:
        return self.player if player is None else player

    def render(self) -> str | np.ndarray | None:
        """The board as text or as a picture, from the agent's side."""
        if self.render_mode == "ansi":
            return "\n".join("".join(".xo"[cell] for cell in row) for row in self.cells())
        if self.render_mode == "rgb_array":
            return draw_board(self.cells(), self._rules.slanted)
        return None

    def _info(self, player: int | None = None) -> dict[str, Any]:
        mask = np.zeros(self._rules.actions, np.int8)
        mask[self.legal(player)] = 1
        return {"action_mask": mask, "position": Position(self.view, self.state)}

    def _answer(self) -> None:
        """The opponent's moves until it is the agent's turn."""
        state, other = self.state, 1 - self.player
        while not state.is_terminal() and state.current_player() == other:
            seen, info = self.cells(other)[None], self._info(other)
            action = int(self._opponent.decide(seen, [info], [0]).actions[0])
            if not info["action_mask"][action]:
                raise GeneralistError(f"The opponent's action {action} is not legal here.")
            state.apply_action(self.translate(action, other))
        if state.is_terminal():
            self._opponent.end([0])
