"""Beam search in a world model: sequences of actions that are imagined to earn most.

Each search keeps a number of rows. At every depth:
1. Each row chooses an action as the model expects it in the data, the likeliest or one that is
   drawn. So a plan stays near what the model knows.
2. The model imagines what the action earns, what will be earned after it, and whether the episode
   goes on.
3. The better half of the rows by the sum of discounted rewards and the last return-to-go go on;
   each of them is continued twice.

The first action of the best row is taken (Janner et al. 2021, "Offline Reinforcement Learning as
One Big Sequence Modeling Problem", section 3.2 and algorithm 1, with returns-to-go in place of
likelihoods). With one row and one step that is the likeliest action.

Rows of all searches are imagined as one batch, and no search knows of another.

Legend: N = searches, W = rows of each, B = rows that go on, k = action tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Imagined:
    """What is expected of the actions of some rows; arrays of one shape, (N, W), float64.

    Attributes:
        rewards: what each earns.
        goes_on: how probable it is that the episode goes on.
        values: what will be earned after it, discounted; 0 where the episode is over.
    """

    rewards: np.ndarray
    goes_on: np.ndarray
    values: np.ndarray


class World(Protocol):
    """A model that imagines, in rows that begin where the real episodes are."""

    def propose(self, kept: np.ndarray | None) -> np.ndarray:
        """Choose the next action of every row.

        Args:
            kept: (N, B) rows that go on: row w of a search continues its row `kept[:, w % B]`.
                None: all begin anew where the real episodes are, so that B is 1.

        Returns:
            (N, W, k) ids. Those of the first B rows are the likeliest, all others are drawn.
        """

    def imagine(self) -> Imagined:
        """What comes of these actions."""


@dataclass(frozen=True)
class Found:
    """What searches found.

    Attributes:
        actions: (N, k) ids of the actions to take.
        values: (N,) float64, what they are expected to earn, discounted.
    """

    actions: np.ndarray
    values: np.ndarray


def search(world: World, *, width: int, horizon: int, discount: float) -> Found:
    """Plan in N episodes.

    Args:
        world: where they are.
        width: W, at least 1.
        horizon: how many actions are imagined one after the other, at least 1.
        discount: of rewards, in (0, 1].
    """
    going_on = (width + 1) // 2
    proposed = actions = world.propose(None)
    searches = np.arange(len(actions))[:, None]
    parents = np.zeros(actions.shape[:2], np.int64)
    first = np.broadcast_to(np.arange(width), actions.shape[:2])  # root action of each row
    earned = score = np.zeros(actions.shape[:2])
    alive = np.ones(actions.shape[:2])
    for depth in range(horizon):
        if depth:
            kept = _ranked(score, _repeats(parents, actions))[:, :going_on]
            parents = kept[:, np.arange(width) % going_on]
            first = first[searches, parents]
            earned, alive = earned[searches, parents], alive[searches, parents]
            actions = world.propose(kept)
        imagined = world.imagine()
        earned = earned + discount**depth * alive * imagined.rewards
        score = earned + discount ** (depth + 1) * alive * imagined.values
        alive = alive * imagined.goes_on
    best = score.argmax(axis=1)
    rows = np.arange(len(best))
    return Found(proposed[rows, first[rows, best]], score[rows, best])


def _ranked(score: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """(N, W) rows from the best to the worst, those that repeat another behind all others."""
    return np.lexsort((-score, repeats), axis=1)


def _repeats(parents: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """(N, W) bool, whether a row before has the same parent, (N, W), and action, (N, W, k)."""
    rows = np.concatenate([parents[..., None], actions], axis=2)
    found = np.ones(parents.shape, bool)
    for own, each in zip(found, rows, strict=True):
        own[np.unique(each, axis=0, return_index=True)[1]] = False
    return found
