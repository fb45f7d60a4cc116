"""PUCT in simulators that can be restored, with a model that proposes actions.

Each search has one simulator, in the state where its episode is. In each round:
1. Every search follows the best score from its root to a leaf (see `generalist.planning.puct`),
   restores the state before it and takes one step of the simulator.
2. The model sees what that step led to, and proposes the next actions: all there are, each with its
   probability, or some that are drawn.
3. The leaf is worth what the model says. Where it says nothing, it acts on from there as it would
   by itself, until the path from the root has `horizon` steps: all paths are as long, so that
   none seems better for being longer.
4. Rewards and values go back along the path.

The most visited first action is taken. What is left to chance is drawn anew in every step of a
simulator, from numbers that are not the episode's own. No search knows of another.

Legend: N = searches, L = most actions that are proposed in a state, B = states looked at together.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from generalist.planning.puct import Trees, most_visited
from generalist.planning.simulators import Simulator, borrowed


@dataclass(frozen=True)
class Proposed:
    """What a model says of B states.

    Attributes:
        priors: (B, L) float32, which sum to 1; an action of prior 0 is not tried.
        values: (B,) float32, the discounted return that is expected; None where it says none.
    """

    priors: np.ndarray
    values: np.ndarray | None


class Guide(Protocol):
    """A model that sees the states of N searches, each with the history that led to it.

    Nodes are numbered as in `Trees`: 0 is where the real episode is.

    Attributes:
        most_actions: L.
    """

    most_actions: int

    def propose(self, searches: Sequence[int], nodes: Sequence[int]) -> Proposed:
        """What to do in states that were seen; asked once for each."""

    def action(self, search: int, node: int, number: int) -> Any:
        """An action that was proposed, for the simulator."""

    def follow(
        self,
        searches: Sequence[int],
        parents: Sequence[int],
        numbers: Sequence[int],
        nodes: Sequence[int],
        observations: Sequence[Any],
    ) -> None:
        """See what proposed actions, by their numbers, led to: new nodes behind their parents."""

    def set_out(self, searches: Sequence[int], nodes: Sequence[int]) -> None:
        """Begin to act on from these nodes, at most once at a time in each search."""

    def choose(self, searches: Sequence[int]) -> list[Any]:
        """The next actions of searches that act on."""

    def observe(self, searches: Sequence[int], observations: Sequence[Any]) -> None:
        """See what these actions led to."""


@dataclass(frozen=True)
class Found:
    """What searches found.

    Attributes:
        best: (N,) numbers of the actions to take, among those proposed at the roots.
        visits: (N, L) int64; their sum is the number of simulations.
        values: (N,) float32, mean of what all simulations earned, discounted.
        steps: (N,) int64, how many steps the simulators took.
    """

    best: np.ndarray
    visits: np.ndarray
    values: np.ndarray
    steps: np.ndarray


def search(
    guide: Guide,
    simulators: Sequence[Simulator],
    randoms: Sequence[np.random.Generator],
    *,
    simulations: int,
    horizon: int | None,
    discount: float,
    exploration: float,
) -> Found:
    """Search from where N simulators are; they are left as they were.

    Args:
        guide: has seen the states of the simulators.
        simulators: one for each search.
        randoms: of each, what is left to chance while it searches.
        simulations: of each search, at least 1. With 1 the likeliest action is found.
        horizon: steps that paths are long; None: the guide says what leaves are worth.
        discount: of rewards, in (0, 1].
        exploration: c of PUCT.
    """
    with ExitStack() as stack:
        pairs = zip(simulators, randoms, strict=True)
        states = [stack.enter_context(borrowed(own, random)) for own, random in pairs]
        running = _Searches(guide, simulators, horizon=horizon, discount=discount)
        return running.run(states, simulations, exploration)


class _Searches:
    """Searches that run in step."""

    def __init__(
        self,
        guide: Guide,
        simulators: Sequence[Simulator],
        *,
        horizon: int | None,
        discount: float,
    ) -> None:
        self._guide, self._simulators = guide, simulators
        self._horizon, self._discount = horizon, discount
        self._steps = np.zeros(len(simulators), np.int64)

    def run(self, states: Sequence[Any], simulations: int, exploration: float) -> Found:
        """Search from these states, in which the simulators are."""
        everyone = np.arange(len(states))
        roots = np.zeros_like(everyone)
        trees = Trees(
            states, nodes=simulations + 1, moves=self._guide.most_actions,
            exploration=exploration, discount=self._discount, scaled=True,
        )  # fmt: skip
        priors, values = self._judged(everyone, roots, depths=roots)
        trees.fill(everyone, priors, values, priors > 0)
        for _ in range(simulations):
            self._simulate(trees)
        visits = trees.visits[:, 0].astype(np.int64)
        return Found(most_visited(visits, priors), visits, trees.root_values(), self._steps)

    def _simulate(self, trees: Trees) -> None:
        """One simulation in every tree."""
        # 1. To a leaf, and one step of the simulator where it is new.
        reached = trees.descend()
        values = trees.value[np.arange(len(reached)), np.maximum(reached, 0)]
        seen: list[tuple[int, int, int, Any]] = []
        for tree in np.flatnonzero(reached < 0).tolist():
            node, move = trees.leaf(tree)
            simulator = self._simulators[tree]
            simulator.restore(trees.states[tree][node])
            action = self._guide.action(tree, node, move)
            last = int(trees.depth[tree]) == self._horizon
            observation, reward, over = self._step(tree, action, seen=not last)
            trees.add(tree, None if over or last else simulator.save(), reward)
            if over or last:
                values[tree] = trees.finish(tree, 0.0)
            else:
                seen.append((tree, node, move, observation))
        # 2. What the model says of the new states, or earns from there.
        if seen:
            fresh, parents, moves, observations = (list(each) for each in zip(*seen, strict=True))
            nodes = trees.newest(fresh)
            self._guide.follow(fresh, parents, moves, nodes.tolist(), observations)
            priors, judged = self._judged(np.array(fresh), nodes, depths=trees.depth[fresh])
            trees.fill(np.array(fresh), priors, judged, priors > 0)
            values[fresh] = judged
        # 3. Back to the roots.
        trees.back_up(values)

    def _judged(
        self, searches: np.ndarray, nodes: np.ndarray, *, depths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Priors (B, L) and values (B,) of nodes, in whose states the simulators are."""
        proposed = self._guide.propose(searches.tolist(), nodes.tolist())
        if self._horizon is not None:
            return proposed.priors, self._earned(searches, nodes, self._horizon - depths)
        assert proposed.values is not None, "without a horizon the guide says values"
        return proposed.priors, proposed.values

    def _earned(self, searches: np.ndarray, nodes: np.ndarray, left: np.ndarray) -> np.ndarray:
        """(B,) float32 what the model's own actions earn in the (B,) steps that are left."""
        self._guide.set_out(searches.tolist(), nodes.tolist())
        earned = np.zeros(len(searches), np.float32)
        active = list(range(len(searches)))
        for step in range(int(left.max())):
            if not active:
                break
            actions = self._guide.choose(searches[active].tolist())
            on, observations = [], []
            for row, action in zip(active, actions, strict=True):
                last = step + 1 == left[row]
                observation, reward, over = self._step(int(searches[row]), action, seen=not last)
                earned[row] += self._discount**step * reward
                if not (over or last):
                    on.append(row)
                    observations.append(observation)
            active = on
            if active:
                self._guide.observe(searches[active].tolist(), observations)
        return earned

    def _step(self, number: int, action: Any, *, seen: bool) -> tuple[Any, float, bool]:
        """A step of a simulator; its observation is None where none is to be seen."""
        self._steps[number] += 1
        simulator = self._simulators[number]
        return simulator.look(action) if seen else (None, *simulator.step(action))
