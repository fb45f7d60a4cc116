"""Policy, Decision: the one interface of whoever acts, for one environment or many at once.

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
    """What a policy decided for N environments at one timestep.

    actions: tree of arrays with leading axis N, of the action space's shapes and dtypes.
    ids: (N, k) int64 token ids of the actions; None where the policy knows no tokens.
    log_probs: (N, k) float32, natural logarithm of each chosen id's probability under the
        distribution it was drawn from: after mask, temperature and top-p, 0 where the choice was
        greedy. None where the policy does not say.
    values: (N,) float32, the return that the policy expects from here on; None where it does not
        say.
    """

    actions: Tree
    ids: np.ndarray | None = None
    log_probs: np.ndarray | None = None
    values: np.ndarray | None = None

    def row(self, number: int) -> Decision:
        """What was decided for one of the environments, with a leading axis of 1."""
        only = slice(number, number + 1)
        parts = (self.ids, self.log_probs, self.values)
        ids, log_probs, values = (None if part is None else part[only] for part in parts)
        actions = tree_map(lambda leaf: leaf[only], self.actions)
        return Decision(actions=actions, ids=ids, log_probs=log_probs, values=values)


class SlotError(Exception):
    """What a policy could not do in one of its slots.

    who: at fault, in words. reason: what was raised.
    """

    def __init__(self, slot: int, who: str, reason: Exception) -> None:
        super().__init__(f"{who} in slot {slot}: {reason}")
        self.slot = slot
        self.who = who
        self.reason = reason


class Policy(Protocol):
    """Whoever acts: an agent, an expert, random play, a person, a planner.

    A *slot* is one running episode. The caller numbers the slots from 0 and may use a number
    again once its episode has ended. One call decides for any subset of the running slots.

    infos: one dict for each slot, as a single Gymnasium environment returns it from `reset` or
        `step`. Policies read `info["instruction"]` (a str, at `begin`) and
        `info["action_mask"]` (as the action space's `sample` takes it, at `decide`); both may
        be missing or None. Whoever steers an episode from outside adds at `decide`
        `info["executed_action"]`, where the step before executed another action than the one
        decided, and `info["new_instruction"]`, where from now on something else is to be done.
    """

    def begin(
        self,
        slots: Sequence[int],
        seeds: Sequence[int],
        infos: Sequence[Mapping[str, Any]],
    ) -> None:
        """Begin an episode in each of these slots, whatever ran there before.

        The environments have just been reset with the same seeds. Whatever a policy draws in an
        episode is a function of its seed alone, and independent of what the environment draws.
        """

    def decide(
        self,
        observations: Tree,
        infos: Sequence[Mapping[str, Any]],
        slots: Sequence[int],
    ) -> Decision:
        """The next action of each of these slots, all of which have begun.

        observations: tree of arrays with leading axis N, row i of slot `slots[i]`.
        """

    def end(self, slots: Sequence[int]) -> None:
        """Forget the episodes in these slots; a slot where none runs is left as it is."""
