"""The running games of self-play: searched in step, and remembered until their outcome is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from generalist.envs.board_view import Boards
from generalist.errors import GeneralistError
from generalist.planning.tree import Found, RootNoise, TreeSearch
from generalist.training.selfplay.recipe import SearchRecipe
from generalist.training.selfplay.replay import Played


@dataclass(frozen=True)
class Ended:
    """A finished game.

    Attributes:
        game: number of the game.
        winner: 0 or 1; None for a draw.
        actions: OpenSpiel's, of both players in turn.
        players: (plies,) who was to move, 0 or 1.
        moves: (plies,) the moves that were made, as the model calls them.
        best: (plies,) those that the search found best.
        played: its positions.
    """

    game: int
    winner: int | None
    actions: list[int]
    players: np.ndarray
    moves: np.ndarray
    best: np.ndarray
    played: Played


_PLY = ("players", "cells", "moves", "visits", "values", "full", "best")
"""What is remembered of each ply."""


class _Running:
    """A game that goes on: its state, its actions, and what was found at each ply."""

    def __init__(self, game: int, state: Any) -> None:
        self.game, self.state = game, state
        self.actions: list[int] = []
        self.plies: list[tuple[Any, ...]] = []  # the parts of `_PLY`


class Games:
    """Games that are played in step by one search.

    Args:
        boards: the games.
        search: finds the moves.
        recipe: how it searches.
        count: games that run at a time.
        random: all random numbers of self-play.

    Attributes:
        weights: (games,) how often new games begin on each board; they need not add up to 1.
        simulations: simulations so far.
        plies: moves so far.
    """

    def __init__(
        self,
        boards: Boards,
        search: TreeSearch,
        recipe: SearchRecipe,
        *,
        count: int,
        random: np.random.Generator,
    ) -> None:
        self.weights = np.ones(len(boards.views))
        self.simulations = self.plies = 0
        self._boards, self._search, self._recipe = boards, search, recipe
        self._random = random
        self._noise = RootNoise(recipe.noise_share, recipe.noise_concentration, random)
        sizes = [view.game.rows * view.game.columns for view in boards.views]
        self._drawn_plies = [recipe.drawn_share * size for size in sizes]
        # At first every board has its share.
        self._running = [self._new(number % len(boards.views)) for number in range(count)]

    def _new(self, game: int) -> _Running:
        return _Running(game, self._boards.views[game].start())

    def play(self) -> list[Ended]:
        """Make one move in every game; return those that ended, for which others begin."""
        recipe, running = self._recipe, self._running
        full = bool(self._random.random() < recipe.full_share)
        simulations = recipe.full_simulations if full else recipe.fast_simulations
        found = self._search.search(
            [each.game for each in running],
            [each.state for each in running],
            simulations,
            self._noise if full else None,
        )
        self.simulations += simulations * len(running)
        self.plies += len(running)
        best = found.best()
        chosen = self._chosen(found, best)
        ended = []
        for row, game in enumerate(running):
            self._move(game, found, row, move=int(chosen[row]), best=int(best[row]), full=full)
            if game.state.is_terminal():
                ended.append(self._ended(game))
                running[row] = self._new(self._next_board())
        return ended

    def _chosen(self, found: Found, best: np.ndarray) -> np.ndarray:
        """Which move each game plays: drawn by visits at its beginning, later the best."""
        drawn = self._random.random(len(best)) * found.visits.sum(axis=1)
        by_visits = (found.visits.cumsum(axis=1) > drawn[:, None]).argmax(axis=1)
        early = [len(each.actions) < self._drawn_plies[each.game] for each in self._running]
        return np.where(early, by_visits, best)

    def _move(
        self, game: _Running, found: Found, row: int, *, move: int, best: int, full: bool
    ) -> None:
        seen = found.positions
        game.plies.append(
            (
                int(seen.player[row]), seen.cells[row].copy(), seen.moves[row].astype(np.int16),
                found.visits[row].astype(np.uint16), float(found.values[row]), full,
                int(seen.moves[row, best]),
            )
        )  # fmt: skip
        action = int(seen.actions[row, move])
        game.actions.append(action)
        game.state = self._boards.after(game.state, action)

    def _ended(self, game: _Running) -> Ended:
        won = [self._boards.outcome(game.state, player) for player in (0, 1)]
        winner = next((player for player in (0, 1) if won[player] == 1), None)
        players, cells, moves, visits, values, full, best = zip(*game.plies, strict=True)
        played = Played(
            game=np.full(len(players), game.game, np.int16),
            cells=np.stack(cells),
            moves=np.stack(moves),
            visits=np.stack(visits),
            outcome=np.array([won[player] for player in players], np.float32),
            value=np.array(values, np.float32),
            full=np.array(full),
        )
        who = np.array(players)
        made = self._boards.moves_of(game.game, who, np.array(game.actions))
        return Ended(
            game.game,
            winner,
            actions=game.actions,
            players=who,
            moves=made,
            best=np.array(best),
            played=played,
        )

    def _next_board(self) -> int:
        shares = self.weights / self.weights.sum()
        return int(self._random.choice(len(shares), p=shares))

    def state(self) -> dict[str, np.ndarray]:
        """The running games as arrays, to be continued by `restore`."""
        running = self._running
        plies = [ply for game in running for ply in game.plies]
        columns: list[Any] = list(zip(*plies, strict=True)) if plies else [[]] * len(_PLY)
        return {
            "games": np.array([game.game for game in running]),
            "lengths": np.array([len(game.actions) for game in running]),
            "actions": np.array([a for game in running for a in game.actions], np.int64),
            **{name: np.array(column) for name, column in zip(_PLY, columns, strict=True)},
        }

    def random_states(self) -> list[dict[str, Any]]:
        """The state of the generator of random numbers, as JSON."""
        return [dict(self._random.bit_generator.state)]

    def restore(
        self, state: Mapping[str, np.ndarray], random_states: Sequence[dict[str, Any]]
    ) -> None:
        """Continue the games of `state`: their moves are made again.

        Raises GeneralistError where it lacks what is remembered of a ply.
        """
        if missing := [name for name in _PLY if name not in state]:
            raise GeneralistError(
                f"The checkpoint was saved by an earlier version: its games lack {missing[0]!r}. "
                "Begin a new run in another output_dir."
            )
        (self._random.bit_generator.state,) = random_states
        self._running = []
        first = 0
        for game, length in zip(state["games"].tolist(), state["lengths"].tolist(), strict=True):
            running = self._new(game)
            for ply in range(first, first + length):
                action = int(state["actions"][ply])
                running.actions.append(action)
                running.state = self._boards.after(running.state, action)
                running.plies.append(
                    (
                        int(state["players"][ply]), state["cells"][ply], state["moves"][ply],
                        state["visits"][ply], float(state["values"][ply]),
                        bool(state["full"][ply]), int(state["best"][ply]),
                    )
                )  # fmt: skip
            self._running.append(running)
            first += length
