"""Who plays against the agent on a board: policies that know the rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from generalist.episode import Tree
from generalist.errors import UsageError
from generalist.policy import Decision, Policy

_EXPLORATION = 1.0  # UCT's constant, for returns within [-1, 1]
_TREE_MEGABYTES = 1_000  # a search forgets its least visited branches beyond it


class Board(Protocol):
    """What an opponent may know of the board it plays on."""

    state: Any  # pyspiel.State

    def translate(self, action: int, player: int | None = None) -> int:
        """OpenSpiel's action as told from a player's side, and the other way round."""


MakeOpponent = Callable[[Board], Policy]
"""Makes the opponent of one board, which plays in the policy's slot 0."""


def search(state: Any, simulations: int, seed: int) -> int:
    """The move that OpenSpiel's MCTS finds best in `state` (pyspiel.State), which is left as it is.

    UCT with one random playout a simulation (Kocsis and Szepesvari 2006), proven wins and losses
    backed up (Winands et al. 2008). The same state, simulations and seed give the same move.
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


class RulesOpponent:
    """Moves found from the state of a board itself; they follow from its seed and the game so far.

    board: that is played on. simulations: of a move's search; 0 for random moves.
    """

    def __init__(self, board: Board, simulations: int) -> None:
        self._board = board
        self._simulations = simulations
        self._seed = 0

    def begin(
        self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """As `Policy.begin`."""
        (self._seed,) = seeds

    def decide(
        self, observations: Tree, infos: Sequence[Mapping[str, Any]], slots: Sequence[int]
    ) -> Decision:
        """As `Policy.decide`; the action is told from the opponent's side."""
        board, state = self._board, self._board.state
        seed = self._seed + state.move_number()
        if self._simulations:
            move = search(state, self._simulations, seed)
        else:
            move = int(np.random.default_rng(seed).choice(state.legal_actions()))
        return Decision(actions=np.array([board.translate(move, state.current_player())]))

    def end(self, slots: Sequence[int]) -> None:
        """Nothing is kept from game to game."""


def opponent_named(name: str) -> MakeOpponent:
    """`random`, or `mcts@N`: a search of N simulations a move. Raises UsageError for others."""
    match = re.fullmatch(r"random|mcts@([1-9]\d*)", name)
    if match is None:
        raise UsageError(
            f"An opponent is 'random' or 'mcts@N' with N simulations a move, got {name!r}."
        )
    simulations = int(match[1] or 0)
    return lambda board: RulesOpponent(board, simulations)
