"""Board games over OpenSpiel, each a task of one agent against a stated opponent.

A step is the agent's move and the opponent's answer. The agent sees the board from its own side:
its pieces are "mine" whichever player it is. Where the players go different ways (Hex,
Breakthrough), it always goes the first player's.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs.board_games import EMPTY, MINE, THEIRS, BoardGame, agent_steps, find_game
from generalist.envs.board_picture import draw_board
from generalist.envs.registry import Task
from generalist.errors import GeneralistError, MissingPackageError, UsageError

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
_SIDES = ("first", "second")
_EXPLORATION = 1.0  # UCT's constant, for returns within [-1, 1]
_TREE_MEGABYTES = 1_000  # a search forgets its least visited branches beyond it


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


def search(state: Any, simulations: int, seed: int) -> int:
    """The move that OpenSpiel's MCTS finds best.

    It is UCT with one random playout a simulation (Kocsis and Szepesvari 2006). Proven wins and
    losses are backed up (Winands et al. 2008).

    Args:
        state: A pyspiel.State in which a player is to move; it is left as it is.
        simulations: How many playouts the search may take.
        seed: Of the playouts; the same arguments give the same move.

    Returns:
        OpenSpiel's id of the move.
    """
    import pyspiel

    bot = pyspiel.MCTSBot(
        state.get_game(),
        pyspiel.RandomRolloutEvaluator(1, seed),
        _EXPLORATION,
        simulations,
        _TREE_MEGABYTES,
        True,  # back up what is proven
        seed,
        False,  # be silent
    )
    return bot.step(state)


def _make(
    name: str,
    *,
    render_mode: str | None = None,
    opponent: str | None = None,
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


def _simulations(opponent: str) -> int:
    """Of the opponent's search; 0 for random moves."""
    match = re.fullmatch(r"random|mcts@([1-9]\d*)", opponent)
    if match is None:
        raise UsageError(
            f"An opponent is 'random' or 'mcts@N' with N simulations a move, got {opponent!r}."
        )
    return int(match[1] or 0)


class BoardEnv(gymnasium.Env):
    """A board game for one player.

    Observations: (rows, columns) uint8, each cell 0 empty, 1 mine, 2 theirs.
    Actions: Discrete, an id of OpenSpiel's as the agent's side sees it. `info["action_mask"]`, (n,)
        int8, is 1 where it is legal, at reset and after every step. An illegal one raises
        GeneralistError and changes nothing.
    Rewards: 1 for a game won, -1 for one lost, 0 for a draw and while it goes on.

    Args:
        game: The game and its board.
        opponent: `random`, or `mcts@N`: a search of N simulations a move. Its moves follow from the
            episode's seed and the game so far.
        side: `first` or `second`; None draws it from the episode's seed. `info["side"]` says which.
        render_mode: `ansi`, `rgb_array` or None.

    Raises:
        MissingPackageError: OpenSpiel is missing.
        UsageError: There is no such side or opponent.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}

    def __init__(
        self, game: BoardGame, opponent: str, *, side: Side | None, render_mode: str | None
    ) -> None:
        try:
            import pyspiel
        except ImportError as error:
            raise MissingPackageError("pyspiel", "board/") from error
        if side not in (None, *_SIDES):
            raise UsageError(f"side is 'first' or 'second', or not given, got {side!r}.")
        self._rules, self._side = game, side
        self._opponent = _simulations(opponent)
        self._spiel = pyspiel.load_game(game.spiel)
        self.state = self._spiel.new_initial_state()
        self.player = 0
        self._opponent_seed = 0
        self.render_mode = render_mode
        shape = (game.rows, game.columns)
        self.observation_space = spaces.Box(EMPTY, THEIRS, shape, np.uint8)
        self.action_space = spaces.Discrete(game.actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new game, in which the opponent has moved if it is the first player."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2))
        self.player = drawn if self._side is None else _SIDES.index(self._side)
        self._opponent_seed = int(self.np_random.integers(2**30))
        self.state = self._spiel.new_initial_state()
        self._answer()
        return self.cells(), {**self._info(), "side": _SIDES[self.player]}

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

    def translate(self, action: int) -> int:
        """An action told from the agent's side as OpenSpiel's, and the other way round."""
        return int(self._rules.moves[self.player][action])

    def legal(self) -> np.ndarray:
        """The legal actions in ascending order, told from the agent's side; none at the end."""
        return np.sort(self._rules.moves[self.player][self.state.legal_actions()])

    def cells(self) -> np.ndarray:
        """The board from the agent's side: (rows, columns) uint8 of 0 empty, 1 mine, 2 theirs."""
        rules = self._rules
        planes = np.asarray(self.state.observation_tensor(0), np.uint8).reshape(3, -1)
        mine, theirs = (planes[rules.planes[p]] for p in (self.player, 1 - self.player))
        seen = (MINE * mine + THEIRS * theirs)[rules.cells[self.player]]
        return seen.reshape(rules.rows, rules.columns)

    def render(self) -> str | np.ndarray | None:
        """The board as text or as a picture, from the agent's side."""
        if self.render_mode == "ansi":
            return "\n".join("".join(".xo"[cell] for cell in row) for row in self.cells())
        if self.render_mode == "rgb_array":
            return draw_board(self.cells(), self._rules.slanted)
        return None

    def _info(self) -> dict[str, Any]:
        mask = np.zeros(self._rules.actions, np.int8)
        mask[self.legal()] = 1
        return {"action_mask": mask}

    def _answer(self) -> None:
        state = self.state
        while not state.is_terminal() and state.current_player() != self.player:
            seed, legal = self._opponent_seed + state.move_number(), state.legal_actions()
            if self._opponent:
                move = search(state, self._opponent, seed)
            else:
                move = int(np.random.default_rng(seed).choice(legal))
            state.apply_action(move)
