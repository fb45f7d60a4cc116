"""A person as a policy: plays a board game at the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from generalist.envs.board_games import BoardGame
from generalist.envs.board_moves import board_text, move_names, read_move
from generalist.envs.board_view import Position
from generalist.episode import Tree
from generalist.errors import UsageError
from generalist.policy import Decision

HUMAN = "human"
"""Name of this player."""


class Person:
    """A policy that shows a board and asks for the move, again while it is not legal.

    It reads `info["position"]`, which board environments give.

    Args:
        ask: shows a prompt and returns what was typed; None at the terminal.
        say: shows lines; None at the terminal.

    Attributes:
        name: `human`.

    Raises:
        UsageError: the input ended; from `decide`.
    """

    def __init__(
        self,
        ask: Callable[[str], str] | None = None,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self.name = HUMAN
        self._ask, self._say = ask or input, say or print

    def begin(
        self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """As `Policy.begin`; nothing is kept."""

    def decide(
        self, observations: Tree, infos: Sequence[Mapping[str, Any]], slots: Sequence[int]
    ) -> Decision:
        """As `Policy.decide`, one game after the other."""
        return Decision(actions=np.array([self._move(info["position"]) for info in infos]))

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""

    def _move(self, position: Position) -> int:
        view, state = position.view, position.state
        legal = view.legal(state)
        self._say(f"\n{_last_move(position)}{board_text(view.game, view.cells(state))}")
        while True:
            try:
                typed = self._ask(f"Your move (you are x, such as {_example(view.game, legal)}): ")
            except EOFError:
                raise UsageError(
                    "The input ended before the game did. Play in a terminal, or give a line for "
                    "each move."
                ) from None
            try:
                return read_move(view.game, typed, legal)
            except UsageError as error:
                self._say(str(error))

    def over(self, position: Position, player: int, against: str) -> None:
        """Show how a game has ended.

        Args:
            position: the last one.
            player: which of the two the person was, 0 or 1.
            against: name of the other player.
        """
        view, state = position.view, position.state
        outcome = view.outcome(state, player) or 0.0
        told = {1.0: "You won", 0.0: "A draw", -1.0: "You lost"}[outcome]
        self._say(f"\n{board_text(view.game, view.cells(state, player))}")
        self._say(f"{told} against {against}.")


def _last_move(position: Position) -> str:
    """A line that says the other's last move; nothing where there is none, or it has no name."""
    view, state = position.view, position.state
    history = state.history()
    if not history or view.game.moves_by == "step":  # the other's steps go the other way
        return ""
    seen = view.game.moves[view.mover(state)][history[-1]]
    return f"The last move was {move_names(view.game)[seen]}.\n"


def _example(game: BoardGame, legal: np.ndarray) -> str:
    return move_names(game)[int(legal[len(legal) // 2])]
