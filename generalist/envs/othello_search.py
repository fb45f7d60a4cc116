"""Monte Carlo tree search in Othello by rules of our own, as OpenSpiel's search plays other boards.

UCT (Kocsis and Szepesvari 2006) with one random playout a simulation, that backs up proven wins and
losses (Winands et al. 2008). A node holds the stones of the player to move and of the other one, so
every ply changes sides; passing is a ply.
"""

from __future__ import annotations

import math
from random import Random

from generalist.envs.othello import OthelloRules, OthelloState, cells_of, othello_rules


class _Node:
    """A position, and what is known of it by the player who moved there.

    Attributes:
        mine: stones of the player to move.
        theirs: stones of the player who moved there.
        visits: simulations through it.
        total: sum of what they returned.
        outcome: -1, 0 or 1 where it is proven; else None.
        children: the cell of each move, 0 to pass, and what follows; empty until the second visit.
    """

    __slots__ = ("children", "mine", "outcome", "theirs", "total", "visits")

    def __init__(self, mine: int, theirs: int) -> None:
        self.mine, self.theirs = mine, theirs
        self.visits, self.total = 0, 0
        self.outcome: int | None = None
        self.children: list[tuple[int, _Node]] = []


def search_othello(state: OthelloState, simulations: int, exploration: float, seed: int) -> int:
    """The best action in a state.

    Args:
        state: the state; it stays unchanged, and its game goes on.
        simulations: most simulations; fewer where the outcome is proven.
        exploration: c of UCT, for returns within [-1, 1].
        seed: the same arguments give the same action.
    """
    mover = state.mover
    root = _Node(state.stones[mover], state.stones[1 - mover])
    search = _Search(othello_rules(state.size), exploration, Random(seed))
    for _ in range(simulations):
        search.simulate(root)
        if root.outcome is not None:
            break
    if not root.children:
        search.grow(root)
    cell, _ = max(root.children, key=lambda child: _worth(child[1]))
    return cell.bit_length() - 1 if cell else state.size**2


def _worth(node: _Node) -> tuple[int, int, int]:
    """What the move to a node is chosen by in the end."""
    return node.outcome or 0, node.visits, node.total


class _Search:
    def __init__(self, rules: OthelloRules, exploration: float, random: Random) -> None:
        self._rules, self._exploration, self._random = rules, exploration, random

    def simulate(self, root: _Node) -> None:
        """Descend to a node that is new or proven, and tell all nodes on the way."""
        path, node = [root], root
        while node.visits and node.outcome is None:
            if not node.children:
                self.grow(node)
            node = self._chosen(node)
            path.append(node)
        if node.outcome is None:
            node.outcome = self._outcome(node)
        won = -self._playout(node.mine, node.theirs) if node.outcome is None else node.outcome
        for each in reversed(path):
            each.visits += 1
            each.total += won
            won = -won
        for each in path[-2::-1]:
            if not _prove(each):
                break

    def grow(self, node: _Node) -> None:
        """Add all moves of a position that is not the last of its game."""
        mine, theirs, rules = node.mine, node.theirs, self._rules
        for cell in cells_of(rules.moves(mine, theirs)):
            turned = rules.turned(cell, mine, theirs)
            node.children.append((cell, _Node(theirs & ~turned, mine | cell | turned)))
        if not node.children:
            node.children.append((0, _Node(theirs, mine)))
        self._random.shuffle(node.children)

    def _chosen(self, node: _Node) -> _Node:
        log = math.log(node.visits)

        def score(child: _Node) -> float:
            if child.outcome is not None:
                return child.outcome
            if not child.visits:
                return math.inf
            return child.total / child.visits + self._exploration * math.sqrt(log / child.visits)

        return max((child for _, child in node.children), key=score)

    def _outcome(self, node: _Node) -> int | None:
        """By stones where neither can move; else None."""
        mine, theirs = node.mine, node.theirs
        if self._rules.moves(mine, theirs) or self._rules.moves(theirs, mine):
            return None
        return _more(theirs, mine)

    def _playout(self, mine: int, theirs: int) -> int:
        """The outcome of random moves for the player to move."""
        rules, random = self._rules, self._random.random
        side, passed = 1, False
        while True:
            moves = rules.moves(mine, theirs)
            if not moves and passed:
                return side * _more(mine, theirs)
            passed = not moves
            if passed:
                mine, theirs = theirs, mine
            else:
                for _ in range(int(random() * moves.bit_count())):
                    moves &= moves - 1
                cell = moves & -moves
                turned = rules.turned(cell, mine, theirs)
                mine, theirs = theirs & ~turned, mine | cell | turned
            side = -side


def _more(mine: int, theirs: int) -> int:
    """1 where mine are more stones, -1 where theirs are, else 0."""
    one, other = mine.bit_count(), theirs.bit_count()
    return (one > other) - (one < other)


def _prove(node: _Node) -> bool:
    """Whether a position is proven by those that follow: one is won, or all are known."""
    known = [child.outcome for _, child in node.children if child.outcome is not None]
    if known and (max(known) == 1 or len(known) == len(node.children)):
        node.outcome = -max(known)
    return node.outcome is not None
