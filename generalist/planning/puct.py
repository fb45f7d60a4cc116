"""Trees of PUCT as arrays, so that one operation of numpy serves many searches in step.

The score of a move is Q + c S P sqrt(N) / (1 + n): Q its mean value, P its prior, n its visits, N
those of its node (Silver et al. 2017, "Mastering the game of Go without human knowledge", Methods).
A move without visits has the value of its node. S is 1 where values have a known range. Elsewhere
it is the distance of the largest from the least value in the tree: to scale what is added is to
normalise Q by both (Schrittwieser et al. 2020, "Mastering Atari, Go, chess and shogi by planning
with a learned model", appendix B).

What a move returns is its reward and the discounted value of what follows. In a game of two who
move in turn there are no rewards, and the discount is -1.

Legend: G = searches, N = nodes of a tree, L = most moves of a node, B = nodes filled together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

EXPLORATION = 1.5
"""c. The probe that chose it tried no other."""


class Trees:
    """G trees of up to N nodes. Node 0 is the root; a node's arrays are those of its moves.

    Args:
        states: of the roots.
        nodes: N.
        moves: L.
        exploration: c.
        discount: of what follows a move.
        scaled: whether S follows the values in the tree.
    """

    def __init__(
        self,
        states: Sequence[Any],
        *,
        nodes: int,
        moves: int,
        exploration: float,
        discount: float,
        scaled: bool,
    ) -> None:
        trees = len(states)
        shape = trees, nodes, moves
        self.states: list[list[Any]] = [[state] for state in states]
        self.exploration, self.discount, self.scaled = exploration, discount, scaled
        self.visits = np.zeros(shape, np.float32)
        self.mean = np.full(shape, -np.inf, np.float32)  # never chosen behind the legal moves
        self.prior = np.zeros(shape, np.float32)
        self.reward = np.zeros(shape, np.float32)
        self.child = np.full(shape, -1, np.int32)
        self.total = np.ones((trees, nodes), np.float32)  # visits of a node, its own included
        self.value = np.zeros((trees, nodes), np.float32)
        self.final = np.zeros((trees, nodes), bool)
        self.path = np.zeros((trees, nodes, 2), np.int64)  # (node, move) from the root on
        self.depth = np.zeros(trees, np.int64)
        self.least = np.full(trees, np.inf, np.float32)
        self.largest = np.full(trees, -np.inf, np.float32)
        self.scale = np.ones(trees, np.float32)  # S

    def newest(self, trees: Sequence[int] | np.ndarray) -> np.ndarray:
        """(B,) numbers of the newest nodes of these trees."""
        return np.array([len(self.states[tree]) - 1 for tree in trees])

    def fill(
        self, trees: np.ndarray, priors: np.ndarray, values: np.ndarray, legal: np.ndarray
    ) -> None:
        """Write the newest node of each of these trees.

        Args:
            trees: (B,) numbers of trees.
            priors: (B, L).
            values: (B,).
            legal: (B, L) bool, which moves there are.
        """
        nodes = self.newest(trees)
        self.prior[trees, nodes] = priors
        self.mean[trees, nodes] = np.where(legal, values[:, None], -np.inf)
        self.value[trees, nodes] = values
        self._widen(trees, values)

    def descend(self) -> np.ndarray:
        """Follow the best score to a leaf: (G,) its node if it is final, -1 if it is new."""
        trees = len(self.depth)
        active, nodes = np.arange(trees), np.zeros(trees, np.int64)
        reached = np.full(trees, -1)
        depth = 0
        while len(active):
            factor = self.exploration * self.scale[active] * np.sqrt(self.total[active, nodes])
            spread = self.prior[active, nodes] / (1 + self.visits[active, nodes])
            score = self.mean[active, nodes] + factor[:, None] * spread
            moves = score.argmax(axis=1)
            self.path[active, depth, 0], self.path[active, depth, 1] = nodes, moves
            depth += 1
            self.depth[active] = depth
            children = self.child[active, nodes, moves]
            reached[active] = children
            on = (children >= 0) & ~self.final[active, children]
            active, nodes = active[on], children[on]
        return reached

    def leaf(self, tree: int) -> tuple[int, int]:
        """The last node of a tree's path, and the move there."""
        node, move = self.path[tree, self.depth[tree] - 1].tolist()
        return node, move

    def add(self, tree: int, state: Any, reward: float = 0.0) -> None:
        """Add a node at the end of a tree's path: its state, and the reward on the way to it."""
        node, move = self.leaf(tree)
        self.child[tree, node, move] = len(self.states[tree])
        self.reward[tree, node, move] = reward
        self.states[tree].append(state)

    def finish(self, tree: int, value: float) -> float:
        """Say that a tree's newest node is final, and what it is worth; returns that."""
        node = len(self.states[tree]) - 1
        self.final[tree, node], self.value[tree, node] = True, value
        return value

    def back_up(self, values: np.ndarray) -> None:
        """Add what follows from the values (G,) of the leaves to all moves of the paths."""
        plies = np.arange(int(self.depth.max()))
        trees, at = np.nonzero(plies < self.depth[:, None])
        nodes, moves = self.path[trees, at, 0], self.path[trees, at, 1]
        powers = np.float32(self.discount) ** np.arange(len(plies) + 1, dtype=np.float32)
        rewards = np.zeros((len(self.depth), len(plies)), np.float32)
        rewards[trees, at] = self.reward[trees, nodes, moves]
        later = (rewards * powers[:-1])[:, ::-1].cumsum(axis=1)[:, ::-1]  # seen from the root
        returns = (later[trees, at] + powers[self.depth[trees]] * values[trees]) / powers[at]
        visits = self.visits[trees, nodes, moves] + 1
        mean = self.mean[trees, nodes, moves]
        # The first visit puts what was returned in the place of the node's own value.
        mean = mean + (returns - mean) / visits
        self.mean[trees, nodes, moves] = mean
        self.visits[trees, nodes, moves] = visits
        self.total[trees, nodes] += 1
        self._widen(trees, mean)

    def _widen(self, trees: np.ndarray, values: np.ndarray) -> None:
        """Let S follow values (B,) of these trees."""
        if not self.scaled:
            return
        np.minimum.at(self.least, trees, values)
        np.maximum.at(self.largest, trees, values)
        # Where all values are one, any scale leaves the choice to the priors.
        width = self.largest - self.least
        self.scale = np.where(width > 0, width, np.float32(1))

    def root_values(self) -> np.ndarray:
        """(G,) float32 mean value of all simulations at the roots."""
        visits, mean = self.visits[:, 0], self.mean[:, 0]
        return (visits * np.where(visits > 0, mean, 0)).sum(axis=1) / visits.sum(axis=1)


def most_visited(visits: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """(G,) moves with the most visits, (G, L); of equals the likelier by the priors, (G, L)."""
    return (visits + 0.5 * priors).argmax(axis=1)
