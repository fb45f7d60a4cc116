"""Board games: Monte-Carlo tree search over OpenSpiel's own rules, with more simulations."""

from __future__ import annotations

import zlib
from typing import Any

import gymnasium
import numpy as np

from generalist.envs.board_opponents import search


class BoardSearch:
    """UCT with random playouts from the game as it stands, as the opponents are, but longer.

    The label follows from the position alone, whatever the episode's seed and however it came
    about: one position, one label, which is what a clone can learn. A search does not know the
    opponent's random numbers, only the rules.

    budget: simulations of a move, N in the expert's name `mcts@N`.
    """

    default_budget = 1_000

    def __init__(self, budget: int = default_budget) -> None:
        self.name = f"mcts@{budget}"
        self.budget = budget

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Nothing is kept from move to move."""

    def label(self, observation: Any, env: gymnasium.Env) -> np.int64:
        """The best move found."""
        board = env.unwrapped
        seed = zlib.crc32(board.cells().tobytes()) >> 1  # fits a C int
        return np.int64(board.translate(search(board.state, self.budget, seed)))
