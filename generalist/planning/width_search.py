"""Rollout IW(1): search for the new among the bytes of a game's memory, and take the best found.

Bandres, Bonet and Geffner 2018 (arXiv:1801.03354), section 4; for Atari's memory, Lipovetzky,
Ramirez and Geffner 2015 (IJCAI). A state is searched further only where one of its 128 bytes has a
value that no state so near to the root has had, so a few hundred steps of the emulator look far.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from generalist.errors import UsageError
from generalist.planning.simulators import AleSimulator, borrowed, simulator_of
from generalist.streams import Stream, random_stream

_BYTES = np.arange(128)
_NEVER = np.iinfo(np.int32).max


class Node:
    """A state of the game that was reached in the search, `depth` steps into the episode."""

    __slots__ = (
        "children",
        "depth",
        "lost",
        "memory",
        "open",
        "parent",
        "reward",
        "size",
        "state",
        "value",
    )

    def __init__(self, depth: int, memory: np.ndarray, reward: float, lost: bool) -> None:
        self.depth = depth
        self.memory = memory  # (128,) uint8
        self.reward = reward  # of the step that led here
        self.lost = lost  # a life or the game, by that step; nothing is looked for behind it
        self.parent: tuple[Node, int] | None = None  # and the action that leads here from it
        self.children: dict[int, Node] = {}
        self.state: Any = None
        self.open: list[int] | None = None  # actions still worth trying; None before a first visit
        self.value = 0.0  # discounted return from here on, as far as it was seen
        self.size = 1  # states in the tree from here on


class WidthSearch:
    """Labels a state with the action that the best path found begins with.

    The part of the tree behind the action that was executed is kept for the next decision. Of
    actions with equal returns it takes one with the most states behind it: there is more to do.
    When an action will stick it does not know: each step of the search draws that anew.

    budget: simulator steps, each of four frames, for one decision.
    """

    default_budget = 100
    discount = 0.99
    hold = 0.5  # how often a path goes on with the same action
    horizon = 60  # steps, four seconds of play: a deeper search is a narrower one
    life = 10.0  # what losing one costs, in units of the largest reward seen in this episode

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget or self.default_budget
        self.name = f"planner@{self.budget}"

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Forget the last tree; random numbers follow from `seed`."""
        self._rng = random_stream(seed, Stream.WIDTH_SEARCH)
        simulator = simulator_of(env)
        if not isinstance(simulator, AleSimulator):
            raise UsageError(f"Width search plans for Atari games; got {env}.")
        self._simulator = simulator
        self._actions = list(range(len(env.unwrapped.action_names)))
        self._root: Node | None = None
        self._label = 0
        self._largest_reward = 1e-3

    def label(self, observation: Any, env: gymnasium.Env) -> np.int64:
        """The action to take in the present state of `env`."""
        now = self._simulator.steps()
        if self._root is None or self._root.depth != now:  # else it was asked about this state
            with borrowed(self._simulator, self._rng) as state:
                self._root = self._follow(now)
                self._root.state = state
                self._search(self._root)
            self._label = self._choose(self._root)
        return np.int64(self._label)

    def _follow(self, now: int) -> Node:
        """The node of the present state: in the last tree, where it foresaw this very state."""
        memory = self._simulator.features()
        if self._root is not None and self._root.depth + 1 == now:
            node = self._root.children.get(self._simulator.last_action())
            if node is not None and not node.lost and np.array_equal(node.memory, memory):
                node.parent = None
                return node
        return Node(now, memory, 0.0, False)

    def _search(self, root: Node) -> None:
        # The least depth at which each byte has had each value.
        self._seen = np.full((128, 256), _NEVER, np.int32)
        self._nodes = [root]
        for node in self._nodes:  # what was kept of the tree; the list grows as it is walked
            node.open = None
            self._nodes.extend(node.children.values())
        self._at, self._lives = root, self._simulator.lives()
        self._left = self.budget
        self._visit(root)
        while self._left > 0 and root.open:
            self._rollout(root)

    def _rollout(self, root: Node) -> None:
        """Leave the best path so far at one of its states, and go on to where nothing is new."""
        node, action = self._branch(root), -1
        while node.open:
            if action not in node.open or self._rng.random() >= self.hold:
                action = node.open[int(self._rng.integers(len(node.open)))]
            child = node.children.get(action)
            if child is None:
                if self._left == 0:
                    break
                child = self._grow(node, action)
            if child.open is None:
                self._visit(child)
            node = child
        while node.parent is not None:
            parent, action = node.parent
            assert parent.open is not None
            if not node.open:  # there is nothing new behind it any more
                parent.open.remove(action)
            parent.value = max(self._worth(child) for child in parent.children.values())
            node = parent

    def _branch(self, root: Node) -> Node:
        """One of the states on the best path that have more to try."""
        path, node = [root], root
        while node.children:
            node = max(node.children.values(), key=self._worth)
            if node.open:
                path.append(node)
        return path[int(self._rng.integers(len(path)))]

    def _grow(self, node: Node, action: int) -> Node:
        """Take a step of the simulator from a node."""
        simulator = self._simulator
        if self._at is not node:
            simulator.restore(node.state)
            self._lives = simulator.lives()
        reward, over = simulator.step(action)
        self._left -= 1
        lives = simulator.lives()
        child = Node(node.depth + 1, simulator.features(), reward, over or lives < self._lives)
        child.parent = (node, action)
        if not child.lost:
            child.state = simulator.save()
        node.children[action] = child
        self._nodes.append(child)
        self._at, self._lives = child, lives
        self._largest_reward = max(self._largest_reward, abs(reward))
        return child

    def _visit(self, node: Node) -> None:
        """Decide whether a state is new, and so whether to go on from it."""
        least = self._seen[_BYTES, node.memory]
        new = bool((node.depth < least).any())
        if new:
            self._seen[_BYTES, node.memory] = np.minimum(least, node.depth)
        ahead = node.depth - self._nodes[0].depth
        goes_on = new and not node.lost and ahead < self.horizon
        node.open = list(self._actions) if goes_on else []

    def _choose(self, root: Node) -> int:
        """The action of the best path, from the values of all states in the tree."""
        for node in reversed(self._nodes):  # children before their parents
            children = node.children.values()
            node.size = 1 + sum(child.size for child in children)
            node.value = max((self._worth(child) for child in children), default=0.0)
        return max(
            root.children,
            key=lambda action: (self._worth(root.children[action]), root.children[action].size),
        )

    def _worth(self, node: Node) -> float:
        """Discounted return of a step and what follows it."""
        if node.lost:
            return node.reward - self.life * self._largest_reward
        return node.reward + self.discount * node.value
