"""PUCT in many games of two at once, with a model's priors and values at the leaves.

All games are searched in step. In each round:
1. Every game follows the best score from its root to a leaf: a position that is new or final.
2. The model judges the new positions of all games in one batch. None comes from the same tree, so
   every choice is made with all that is known by then.
3. Each value goes back along its path; it changes sign at every ply.

How a move is scored, and how trees lie in arrays, is in `generalist.planning.puct`: some ten
microseconds a simulation. A model of a million parameters takes five times as long on one core.

Legend: G = games, N = nodes of a tree, L = most legal moves, B = positions judged together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from generalist.planning.puct import EXPLORATION, Trees, most_visited

REMEMBERED = 200_000
"""Positions whose judgement is kept."""


@dataclass(frozen=True)
class Positions:
    """What the players to move see in B states.

    Attributes:
        game: (B,) int64, number of the game.
        player: (B,) int64, who is to move, 0 or 1.
        cells: (B, K) uint8; with game and player they say all that matters of a state.
        actions: (B, L) int64, the legal actions, in an order that follows from game, player and
            cells; those behind `count` mean nothing.
        moves: (B, L) int64, what a model calls them; -1 behind `count`.
        count: (B,) int64, number of legal actions, at least 1.
    """

    game: np.ndarray
    player: np.ndarray
    cells: np.ndarray
    actions: np.ndarray
    moves: np.ndarray
    count: np.ndarray

    def rows(self, rows: Sequence[int]) -> Positions:
        """Some of the positions."""
        return Positions(*(getattr(self, each.name)[rows] for each in fields(self)))


class Rules(Protocol):
    """Games of two who move in turn, as pure functions of states.

    Attributes:
        most_moves: L.
    """

    most_moves: int

    def after(self, state: Any, action: int) -> Any:
        """The state after an action."""

    def outcome(self, state: Any, player: int) -> float | None:
        """What a player has won, in [-1, 1]; None while the game goes on."""

    def look(self, games: Sequence[int], states: Sequence[Any]) -> Positions:
        """What the players to move see."""


class Judge(Protocol):
    """A model that judges positions."""

    def judge(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        """Priors (B, L), which sum to 1 over the legal moves and are 0 behind them; and values (B,)
        in [-1, 1] for the player to move. Both float32.
        """


@dataclass(frozen=True)
class RootNoise:
    """Noise that lets self-play try moves the model thinks nothing of (Silver et al. 2017).

    Attributes:
        share: of the noise in the priors of the root.
        concentration: of the Dirichlet distribution, over all moves together.
        random: what it is drawn from.
    """

    share: float
    concentration: float
    random: np.random.Generator

    def mixed(self, priors: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Priors (B, L) with noise over the first `count` (B,) moves."""
        legal = np.arange(priors.shape[1]) < count[:, None]
        drawn = self.random.standard_gamma(
            np.where(legal, self.concentration / count[:, None], 0.0)
        )
        drawn /= np.maximum(drawn.sum(axis=1, keepdims=True), 1e-12)
        return ((1 - self.share) * priors + self.share * drawn).astype(np.float32)


@dataclass(frozen=True)
class Found:
    """What a search found at its roots.

    Attributes:
        positions: of the roots.
        priors: (G, L) float32, the model's own.
        visits: (G, L) int64, of each move; their sum is the number of simulations.
        values: (G,) float32, mean value of all simulations for the player to move.
    """

    positions: Positions
    priors: np.ndarray
    visits: np.ndarray
    values: np.ndarray

    def best(self) -> np.ndarray:
        """(G,) which move each root should play: the most visited, of equals the likelier."""
        return most_visited(self.visits, self.priors)


class TreeSearch:
    """Searches of many games by one model.

    Args:
        rules: of the games.
        judge: the model.
        exploration: c.
        remembered: judgements that are kept, for all games and all later searches.

    Attributes:
        asked: positions that had to be judged so far.
        judged: those that the model judged; it had judged the others before.
    """

    def __init__(
        self,
        rules: Rules,
        judge: Judge,
        *,
        exploration: float = EXPLORATION,
        remembered: int = REMEMBERED,
    ) -> None:
        self._rules, self._judge, self._exploration = rules, judge, exploration
        self._remembered = remembered
        self._memory: dict[bytes, tuple[np.ndarray, np.float32]] = {}
        self.asked = self.judged = 0

    def forget(self) -> None:
        """Forget all judgements, because the model has changed."""
        self._memory.clear()

    def search(
        self,
        games: Sequence[int],
        states: Sequence[Any],
        simulations: int,
        noise: RootNoise | None = None,
    ) -> Found:
        """Search from states of these games, none of which has ended.

        Args:
            games: number of each state's game.
            states: the states; they stay unchanged.
            simulations: of each search, at least 1. With 1 the likeliest move is found.
            noise: at the roots; None for none.
        """
        roots = self._rules.look(games, states)
        priors, values = self._judged(roots)
        trees = _BoardTrees(states, simulations, self._rules.most_moves, self._exploration)
        tried = priors if noise is None else noise.mixed(priors, roots.count)
        trees.note(np.arange(len(states)), roots, tried, values)
        for _ in range(simulations):
            self._simulate(games, trees)
        visits = trees.visits[:, 0].astype(np.int64)
        return Found(roots, priors, visits, trees.root_values())

    def _simulate(self, games: Sequence[int], trees: _BoardTrees) -> None:
        """One simulation in every tree."""
        # 1. To a leaf.
        reached = trees.descend()
        values = trees.value[np.arange(len(games)), np.maximum(reached, 0)]
        fresh, states = [], []
        for tree in np.flatnonzero(reached < 0).tolist():
            state, mover = trees.grow(tree, self._rules)
            won = self._rules.outcome(state, mover)
            if won is None:
                fresh.append(tree)
                states.append(state)
            else:
                values[tree] = trees.finish(tree, -won)
        # 2. What the model says of those that are new.
        if fresh:
            positions = self._rules.look([games[tree] for tree in fresh], states)
            priors, judged = self._judged(positions)
            trees.note(np.array(fresh), positions, priors, judged)
            values[fresh] = judged
        # 3. Back to the roots.
        trees.back_up(values)

    def _judged(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        """Priors (B, L) and values (B,), from memory where the model has judged them before."""
        size = len(positions.cells)
        marks = np.stack([positions.game, positions.player], axis=1).astype(np.uint8)
        rows = np.ascontiguousarray(np.concatenate([marks, positions.cells], axis=1))
        keys = [row.tobytes() for row in rows]
        memory = self._memory
        new = [row for row, key in enumerate(keys) if key not in memory]
        self.asked += size
        self.judged += len(new)
        if len(new) == size:
            priors, values = self._judge.judge(positions)
        else:
            priors = np.empty(positions.moves.shape, np.float32)
            values = np.empty(size, np.float32)
            known = [row for row, key in enumerate(keys) if key in memory]
            for row in known:
                priors[row], values[row] = memory[keys[row]]
            if new:
                priors[new], values[new] = self._judge.judge(positions.rows(new))
        if len(memory) + len(new) > self._remembered:
            memory.clear()
        for row in new:
            memory[keys[row]] = priors[row].copy(), values[row]
        return priors, values


class _BoardTrees(Trees):
    """Trees that also say which action a move is, and who is to move."""

    def __init__(
        self, states: Sequence[Any], simulations: int, moves: int, exploration: float
    ) -> None:
        super().__init__(
            states, nodes=simulations + 1, moves=moves, exploration=exploration,
            discount=-1.0, scaled=False,
        )  # fmt: skip
        self.action = np.zeros(self.visits.shape, np.int64)
        self.mover = np.zeros(self.total.shape, np.int8)

    def note(
        self, trees: np.ndarray, positions: Positions, priors: np.ndarray, values: np.ndarray
    ) -> None:
        """Write the newest node of these trees."""
        nodes = self.newest(trees)
        self.action[trees, nodes] = positions.actions
        self.mover[trees, nodes] = positions.player
        legal = np.arange(priors.shape[1]) < positions.count[:, None]
        self.fill(trees, priors, values, legal)

    def grow(self, tree: int, rules: Rules) -> tuple[Any, int]:
        """Add the node at the end of a tree's path: its state, and who moved there."""
        node, move = self.leaf(tree)
        state = rules.after(self.states[tree][node], int(self.action[tree, node, move]))
        self.add(tree, state)
        return state, int(self.mover[tree, node])
