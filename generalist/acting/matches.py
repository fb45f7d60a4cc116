"""Games of two policies on one board, many in step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from generalist.envs.board_view import BoardView, Position
from generalist.errors import GeneralistError
from generalist.policy import Policy
from generalist.streams import Stream, random_stream

_PLIES = 2**10  # a search adds the number of the move to its seed
_SEEDS = 2**21  # the largest seed still fits a C int


@dataclass(frozen=True)
class Pairing:
    """A game to be played.

    Attributes:
        number: of the game; the random numbers of both players follow from it.
        players: numbers of the first and the second player.
        opening: the first moves, as the movers name them.
    """

    number: int
    players: tuple[int, int]
    opening: tuple[int, ...] = ()


@dataclass(frozen=True)
class Result:
    """A game that was played.

    Attributes:
        pairing: which.
        outcome: 1 where the first player won, -1 where it lost, 0 for a draw.
        plies: moves of both, the opening included.
        position: the last one; None where the result was read from a file.
    """

    pairing: Pairing
    outcome: int
    plies: int
    position: Position | None = field(default=None, compare=False, repr=False)


def random_opening(view: BoardView, plies: int, seed: int) -> tuple[int, ...]:
    """Random legal moves from the start, fewer where the game would end."""
    random, state = random_stream(seed, Stream.OPENINGS), view.start()
    moves: list[int] = []
    for _ in range(plies):
        move = int(random.choice(view.legal(state)))
        after = view.after(state, move)
        if after.is_terminal():
            break
        state = after
        moves.append(move)
    return tuple(moves)


@dataclass
class _Table:
    """A game that goes on."""

    pairing: Pairing
    slot: int  # of both players
    state: Any
    plies: int = 0


def play_matches(
    view: BoardView, players: Sequence[Policy], pairings: Sequence[Pairing], parallel: int = 128
) -> Iterator[Result]:
    """Play games between policies; yield each when it ends.

    A policy decides for all games in which it is to move in one call.

    Args:
        view: the board.
        players: the policies.
        pairings: the games.
        parallel: games that run at a time.

    Raises:
        GeneralistError: a policy makes a move that is not legal.
    """
    waiting = iter(pairings)
    running: list[_Table] = []
    free = list(range(parallel))[::-1]
    while True:
        with suppress(StopIteration):
            while free:
                running.append(_seated(view, players, next(waiting), free[-1]))
                free.pop()
        if not running:
            return
        for number, player in enumerate(players):
            mine = [
                table
                for table in running
                if not table.state.is_terminal()
                and table.pairing.players[view.mover(table.state)] == number
            ]
            if mine:
                _decide(view, player, mine)
        for table in [table for table in running if table.state.is_terminal()]:
            running.remove(table)
            free.append(table.slot)
            for player in {id(p): p for p in _policies(players, table.pairing)}.values():
                player.end([table.slot])
            outcome = round(view.outcome(table.state, 0) or 0)
            yield Result(table.pairing, outcome, table.plies, Position(view, table.state))


def _policies(players: Sequence[Policy], pairing: Pairing) -> list[Policy]:
    return [players[number] for number in pairing.players]


def _seated(view: BoardView, players: Sequence[Policy], pairing: Pairing, slot: int) -> _Table:
    table = _Table(pairing, slot, view.start())
    for move in pairing.opening:
        table.state = view.after(table.state, move)
        table.plies += 1
    for side, player in enumerate(_policies(players, pairing)):
        player.begin([slot], [_PLIES * ((2 * pairing.number + side) % _SEEDS)], [{}])
    return table


def _decide(view: BoardView, player: Policy, tables: Sequence[_Table]) -> None:
    """One move of a player in each of these games."""
    game = view.game
    shape = game.rows, game.columns
    seen = np.stack([view.cells(table.state).reshape(shape) for table in tables])
    infos: list[dict[str, Any]] = []
    for table in tables:
        mask = np.zeros(game.actions, np.int8)
        mask[view.legal(table.state)] = 1
        infos.append({"action_mask": mask, "position": Position(view, table.state)})
    chosen = player.decide(seen, infos, [table.slot for table in tables]).actions
    for table, info, move in zip(tables, infos, np.asarray(chosen).tolist(), strict=True):
        if not info["action_mask"][move]:
            raise GeneralistError(f"A player's move {move} is not legal in {table.state}.")
        table.state = view.after(table.state, move)
        table.plies += 1


def score(results: Sequence[Result], player: int) -> float:
    """A player's wins and half its draws, as a share of its games."""
    own = [
        result.outcome if result.pairing.players[0] == player else -result.outcome
        for result in results
        if player in result.pairing.players
    ]
    return float(np.mean(own) + 1) / 2
