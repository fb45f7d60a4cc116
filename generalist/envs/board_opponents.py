"""Opponents of the agent in board games: policies that know the rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from generalist.envs.board_games import OWN_OTHELLO
from generalist.envs.board_view import Position
from generalist.episode import Tree
from generalist.errors import UsageError
from generalist.policy import Decision, Policy

_EXPLORATION = 1.0  # UCT's constant, for returns within [-1, 1]
_TREE_MEGABYTES = 1_000  # a search forgets its least visited branches beyond it


class Board(Protocol):
    """The part of a board game that an opponent may read.

    Attributes:
        state: OpenSpiel's state of the game (pyspiel.State).
    """

    state: Any  # pyspiel.State

    def translate(self, action: int, player: int | None = None) -> int:
        """OpenSpiel's action as told from a player's side, and the other way round."""


MakeOpponent = Callable[[Board], Policy]
"""Makes the opponent on a board. The opponent plays in slot 0 of its policy."""


def search(state: Any, simulations: int, seed: int) -> int:
    """The best move in a state, by OpenSpiel's Monte Carlo tree search.

    UCT (Kocsis and Szepesvari 2006) with one random playout per simulation; it backs up proven wins
    and losses (Winands et al. 2008). The same arguments give the same move.

    Args:
        state: the state (pyspiel.State); it stays unchanged.
        simulations: simulations of the search.
        seed: seed of the search.

    Returns:
        OpenSpiel's number of the action.
    """
    import pyspiel

    game = state.get_game()
    if game.get_type().short_name == OWN_OTHELLO:
        from generalist.envs.othello_search import search_othello  # which needs pyspiel

        return search_othello(state, simulations, _EXPLORATION, seed)
    bot = pyspiel.MCTSBot(
        game,
        pyspiel.RandomRolloutEvaluator(1, seed),
        _EXPLORATION,
        simulations,
        _TREE_MEGABYTES,
        True,  # back up proven wins and losses
        seed,
        False,  # be silent
    )
    return bot.step(state)


class RulesPolicy:
    """A policy that searches the true state of a board game, or moves at random.

    It reads `info["position"]`, and plays any board. Its moves depend on the episode's seed and on
    the game so far.

    Args:
        simulations: simulations per move; 0 for random moves.

    Attributes:
        name: `random` or `mcts@N`.
    """

    def __init__(self, simulations: int) -> None:
        self.name = f"mcts@{simulations}" if simulations else "random"
        self._simulations = simulations
        self._seeds: dict[int, int] = {}

    def begin(
        self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """As `Policy.begin`."""
        self._seeds.update(zip(slots, seeds, strict=True))

    def decide(
        self, observations: Tree, infos: Sequence[Mapping[str, Any]], slots: Sequence[int]
    ) -> Decision:
        """As `Policy.decide`."""
        return Decision(
            actions=np.array(
                [
                    self._action(info["position"], self._seeds[slot])
                    for info, slot in zip(infos, slots, strict=True)
                ]
            )
        )

    def _action(self, position: Position, seed: int) -> int:
        state = position.state
        seed += state.move_number()
        if self._simulations:
            move = search(state, self._simulations, seed)
        else:
            move = int(np.random.default_rng(seed).choice(state.legal_actions()))
        return int(position.view.game.moves[state.current_player()][move])

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""
        for slot in slots:
            self._seeds.pop(slot, None)


def opponent_named(name: str) -> MakeOpponent:
    """The opponent of a name.

    Args:
        name: `random`, or `mcts@N` for a search with N simulations per move.

    Raises:
        UsageError: the name has another form.
    """
    match = re.fullmatch(r"random|mcts@([1-9]\d*)", name)
    if match is None:
        raise UsageError(
            f"An opponent is 'random', or 'mcts@N' with N simulations per move; got {name!r}."
        )
    return lambda board: rules_policy(name)


def rules_policy(name: str) -> RulesPolicy:
    """The policy `random` or `mcts@N`."""
    return RulesPolicy(int(name.partition("@")[2] or 0))
