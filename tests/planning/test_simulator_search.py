"""A search in simulators: a tree that was computed by hand, and paths of one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from generalist.envs import make
from generalist.planning.simulator_search import Proposed, search
from generalist.planning.simulators import simulator_of

# state -> (priors, value), and (state, action) -> (next state, reward, over)
STATES = {"root": ((0.7, 0.3), 0.0), "A": ((0.5, 0.5), 1.0)}
STEPS = {
    ("root", 0): ("A", 0.0, False),
    ("root", 1): ("B", 2.0, True),
    ("A", 0): ("C", -1.0, True),
    ("A", 1): ("D", 0.0, True),
}


class Automaton:
    """The simulator of a game with five states."""

    step_seconds = None

    def __init__(self) -> None:
        self.state = "root"

    def steps(self) -> int:
        return 0

    def save(self) -> Any:
        return self.state

    def restore(self, state: Any) -> None:
        self.state = state

    def step(self, action: Any) -> tuple[float, bool]:
        self.state, reward, over = STEPS[self.state, action]
        return reward, over

    def look(self, action: Any) -> tuple[Any, float, bool]:
        reward, over = self.step(action)
        return self.state, reward, over

    def features(self) -> np.ndarray:
        return np.zeros(1)

    def exchange_random(self, random: Any) -> Any:
        return random


class Table:
    """A guide that knows the states of the automaton."""

    most_actions = 2

    def __init__(self, searches: int) -> None:
        self.seen = {(each, 0): "root" for each in range(searches)}

    def propose(self, searches: Sequence[int], nodes: Sequence[int]) -> Proposed:
        said = [STATES[self.seen[pair]] for pair in zip(searches, nodes, strict=True)]
        priors, values = (np.array(each, np.float32) for each in zip(*said, strict=True))
        return Proposed(priors, values)

    def action(self, search: int, node: int, number: int) -> int:
        return number

    def follow(self, searches, parents, numbers, nodes, observations) -> None:  # noqa: ANN001
        self.seen |= zip(zip(searches, nodes, strict=True), observations, strict=True)


class Fixed:
    """A guide that always proposes two actions and acts on by a third; it says no values."""

    most_actions = 2

    def __init__(self, proposed: Sequence[Any], own: Any) -> None:
        self.proposed, self.own = proposed, own
        self.observed: list[int] = []  # how many searches saw something

    def propose(self, searches: Sequence[int], nodes: Sequence[int]) -> Proposed:
        return Proposed(np.full((len(searches), 2), 0.5, np.float32), None)

    def action(self, search: int, node: int, number: int) -> Any:
        return self.proposed[number]

    def follow(self, searches, parents, numbers, nodes, observations) -> None:  # noqa: ANN001
        self.observed.append(len(observations))

    def set_out(self, searches: Sequence[int], nodes: Sequence[int]) -> None:
        pass

    def choose(self, searches: Sequence[int]) -> list[Any]:
        return [self.own] * len(searches)

    def observe(self, searches: Sequence[int], observations: Sequence[Any]) -> None:
        self.observed.append(len(observations))


def randoms(count: int = 1) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(count)]


# Simulations from the first on, with c = 1 and a discount of 0.5:
# 1. All are worth 0, so the likelier: A, worth 1. The move earned 0 + 0.5 * 1; S is 1 - 0.
# 2. 0.5 + 0.7 sqrt(2) / 2 = 0.99 against 0 + 0.3 sqrt(2) = 0.42: A again, and there C, which ends
#    with -1: -0.5 at the root, so that the mean is 0. S is 1 - (-1).
# 3. 0 + 2 * 0.7 sqrt(3) / 3 = 0.81 against 0 + 2 * 0.3 sqrt(3) = 1.04: B, which ends with 2. S is
#    2 - (-1).
# 4. 0 + 3 * 0.7 sqrt(4) / 3 = 1.4 against 2 + 3 * 0.3 sqrt(4) / 2 = 2.9: B, and so again.
BY_HAND = {
    1: ([1, 0], 0.5),
    2: ([2, 0], 0.0),
    3: ([2, 1], 2 / 3),
    4: ([2, 2], 1.0),
    5: ([2, 3], 1.2),
}


@pytest.mark.parametrize("simulations", BY_HAND)
def test_a_tree_that_was_computed_by_hand(simulations: int) -> None:
    simulators = [Automaton(), Automaton()]
    found = search(
        Table(2), simulators, randoms(2),
        simulations=simulations, horizon=None, discount=0.5, exploration=1.0,
    )  # fmt: skip
    visits, value = BY_HAND[simulations]
    assert found.visits.tolist() == [visits] * 2
    assert found.values == pytest.approx([value] * 2, abs=1e-6)
    assert found.best.tolist() == [int(simulations == 5)] * 2
    assert found.steps.tolist() == [min(simulations, 3)] * 2, "what is final takes no step again"
    assert [each.state for each in simulators] == ["root"] * 2


def test_without_values_paths_are_as_long_as_the_horizon() -> None:
    """In a real simulator, against a twin that takes the same steps."""
    one, twin = make("gym/Pendulum-v1"), make("gym/Pendulum-v1")
    one.reset(seed=3)
    twin.reset(seed=3)
    left, right = np.full((2, 1), [[-2.0], [2.0]], np.float32)
    own = np.zeros(1, np.float32)
    guide = Fixed([left, right], own)
    options: Any = {"discount": 0.9, "exploration": 1.5}
    found = search(guide, [simulator_of(one)], randoms(), simulations=1, horizon=4, **options)
    rewards = [float(twin.step(action)[1]) for action in (left, own, own, own)]
    earned = sum(0.9**number * reward for number, reward in enumerate(rewards))
    assert found.values[0] == pytest.approx(earned, rel=1e-5)
    assert found.steps[0] == 4 + 4, "by itself from the root, then from the leaf"
    assert len(guide.observed) == 3 + 1 + 2, "nothing is seen of the last step of a path"
    # Depth is bounded too: with a horizon of 1 there are two leaves, and both are final.
    found = search(guide, [simulator_of(one)], randoms(), simulations=9, horizon=1, **options)
    assert found.steps[0] == 1 + 2 and found.visits.sum() == 9


def test_it_finds_what_its_guide_would_not_do() -> None:
    """A pole that falls to the right is caught, though the guide pushes to the left."""
    env = make("gym/CartPole-v1")
    env.reset(seed=0)
    env.unwrapped.state = np.array([0.0, 0.0, 0.12, 1.0])  # type: ignore[attr-defined]
    found = search(
        Fixed([0, 1], 1), [simulator_of(env)], randoms(),
        simulations=30, horizon=12, discount=1.0, exploration=1.5,
    )  # fmt: skip
    assert found.best.tolist() == [1]
    found = search(
        Fixed([0, 1], 0), [simulator_of(env)], randoms(),
        simulations=30, horizon=12, discount=1.0, exploration=1.5,
    )  # fmt: skip
    assert found.best.tolist() == [1]
