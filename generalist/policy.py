"""Policy and Decision: the one interface of whoever acts, in one environment or in many at once.

Legend: N = environments decided for by one call, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from generalist.episode import Tree, tree_map


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The decisions of a policy for N environments at one timestep.

    Attributes:
        actions: tree of arrays with leading axis N, of the action space's shapes and dtypes.
        ids: (N, k) int64 token ids of the actions; None where the policy knows no tokens.
        log_probs: (N, k) float32, natural logarithm of the probability of each id, under the
            distribution it was drawn from: after mask, temperature and top-p. 0 for a greedy
            choice. None where the policy gives no probabilities.
        values: (N,) float32, the return that the policy expects from this timestep on. None where
            it gives none.
    """

    actions: Tree
    ids: np.ndarray | None = None
    log_probs: np.ndarray | None = None
    values: np.ndarray | None = None

    def row(self, number: int) -> Decision:
        """The decision for environment `number`, with a leading axis of 1."""
        only = slice(number, number + 1)
        parts = (self.ids, self.log_probs, self.values)
        ids, log_probs, values = (None if part is None else part[only] for part in parts)
        actions = tree_map(lambda leaf: leaf[only], self.actions)
        return Decision(actions=actions, ids=ids, log_probs=log_probs, values=values)


class SlotError(Exception):
    """A failure of a policy in one of its slots.

    Attributes:
        slot: number of the slot.
        who: the party at fault, in words.
        reason: the exception that it raised.
    """

    def __init__(self, slot: int, who: str, reason: Exception) -> None:
        super().__init__(f"{who} in slot {slot}: {reason}")
        self.slot = slot
        self.who = who
        self.reason = reason


class Policy(Protocol):
    """Whoever acts: an agent, an expert, random play, a person, a planner.

    A *slot* is one running episode. The caller numbers the slots from 0, and reuses a number
    once its episode has ended. One call decides for any subset of the running slots.

    `infos` holds one dict per slot, as a single Gymnasium environment returns it from `reset` or
    `step`. A policy reads these keys, each of which may be missing or None:

    - `instruction` (str), at `begin`.
    - `wanted_return` (number or str), at `begin`: the return that the episode is asked for.
    - `reward` (float), at `decide`: what the previous step earned.
    - `action_mask` (as the action space's `sample` takes it), at `decide`.
    - `executed_action`, at `decide`: the action of the previous step, where somebody replaced the
      policy's own.
    - `new_instruction` (str), at `decide`: it holds from this step on.
    """

    def begin(
        self,
        slots: Sequence[int],
        seeds: Sequence[int],
        infos: Sequence[Mapping[str, Any]],
    ) -> None:
        """Begin an episode in each of these slots; it replaces the one that ran there.

        A policy's random numbers in an episode depend on the seed alone, and are independent of
        the environment's.

        Args:
            slots: numbers of the slots.
            seeds: the seeds of the episodes. The caller has just reset the environments with them.
            infos: what the environments returned from `reset`.
        """

    def decide(
        self,
        observations: Tree,
        infos: Sequence[Mapping[str, Any]],
        slots: Sequence[int],
    ) -> Decision:
        """Choose the next action of each of these slots, all of which have begun.

        Args:
            observations: tree of arrays with leading axis N; row i belongs to slot `slots[i]`.
            infos: what the environments returned from their last `reset` or `step`.
            slots: numbers of the N slots.
        """

    def end(self, slots: Sequence[int]) -> None:
        """Forget the episodes in these slots; slots without one stay as they are."""
