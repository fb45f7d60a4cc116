"""Beams: what they find in a world that is known exactly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from generalist.planning.beam import Imagined, search

DEPTH, ACTIONS, WIDTH, DISCOUNT = 3, 2, 8, 0.9


class Tree:
    """Every sequence of actions has rewards of its own; values are of the best that follows."""

    def __init__(self, searches: int, width: int, *, ends: bool = False) -> None:
        rng = np.random.default_rng(0)
        self.rewards = [rng.normal(size=(searches, *[ACTIONS] * (d + 1))) for d in range(DEPTH)]
        self.goes_on = [
            rng.uniform(0.2, 1, r.shape) if ends else np.ones(r.shape) for r in self.rewards
        ]
        self.searches, self.width = searches, width
        self.lines = [[() for _ in range(width)] for _ in range(searches)]

    def propose(self, kept: np.ndarray | None) -> np.ndarray:
        going_on = 1 if kept is None else kept.shape[1]
        if kept is not None:
            assert all(len(set(own)) == len(own) for own in kept.tolist())
            self.lines = [
                [own[rows[w % going_on]] for w in range(self.width)]
                for own, rows in zip(self.lines, kept.tolist(), strict=True)
            ]
        # Row w tries action w // B: both, because there are two rows for each parent.
        tried = np.broadcast_to(
            np.arange(self.width) // going_on % ACTIONS, (self.searches, self.width)
        )
        self.lines = [
            [(*line, int(a)) for line, a in zip(own, acts, strict=True)]
            for own, acts in zip(self.lines, tried, strict=True)
        ]
        return tried[..., None]

    def best(self, search: int, line: tuple[int, ...]) -> float:
        """The best that follows a sequence of actions, as the tree has it."""
        if len(line) == DEPTH:
            return 0.0
        after = [(*line, action) for action in range(ACTIONS)]
        return max(self.worth(search, each) for each in after)

    def worth(self, search: int, line: tuple[int, ...]) -> float:
        """The reward of the last action, and the best that follows it."""
        place, depth = (search, *line), len(line) - 1
        goes_on = self.goes_on[depth][place]
        return self.rewards[depth][place] + DISCOUNT * goes_on * self.best(search, line)

    def imagine(self) -> Imagined:
        shape = self.searches, self.width
        rewards, goes_on, values = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for n, w in itertools.product(*map(range, shape)):
            line = self.lines[n][w]
            place, depth = (n, *line), len(line) - 1
            rewards[n, w] = self.rewards[depth][place]
            goes_on[n, w] = self.goes_on[depth][place]
            values[n, w] = goes_on[n, w] * self.best(n, line)
        return Imagined(rewards, goes_on, values)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_with_true_values_every_horizon_finds_the_best_action(horizon: int, ends: bool) -> None:
    """Those of the tree that repeat the first two actions at the root do not crowd them out."""
    found = search(Tree(8, WIDTH, ends=ends), width=WIDTH, horizon=horizon, discount=DISCOUNT)
    tree = Tree(8, WIDTH, ends=ends)
    for n in range(8):
        worths = [tree.worth(n, (action,)) for action in range(ACTIONS)]
        assert found.actions[n, 0] == int(np.argmax(worths))
        assert found.values[n] == pytest.approx(max(worths))


def test_what_is_found_does_not_depend_on_other_searches() -> None:
    together = search(Tree(8, WIDTH), width=WIDTH, horizon=3, discount=DISCOUNT)
    for n in range(8):
        alone = Tree(8, WIDTH)
        alone.rewards = [each[n : n + 1] for each in alone.rewards]
        alone.goes_on = [each[n : n + 1] for each in alone.goes_on]
        alone.searches, alone.lines = 1, alone.lines[:1]
        found = search(alone, width=WIDTH, horizon=3, discount=DISCOUNT)
        assert found.actions[0] == together.actions[n]
        assert found.values[0] == pytest.approx(together.values[n])
