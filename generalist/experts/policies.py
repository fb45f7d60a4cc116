"""Experts and random play as policies for `generalist.session`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium

from generalist.episode import Tree, tree_map, tree_stack
from generalist.experts.registry import Expert, get_expert
from generalist.policy import Decision, SlotError
from generalist.streams import Stream, random_stream

RANDOM = "random"
"""The name of random play, where an expert's name may stand."""


class ExpertPolicy:
    """Experts as one policy: slot i is expert i in environment i.

    Args:
        experts: one expert per slot.
        environments: the environment of each expert.

    Attributes:
        name: what the first expert is called in records.

    Raises:
        SlotError: an expert raised something, in `begin` or `decide`.
    """

    def __init__(self, experts: Sequence[Expert], environments: Sequence[gymnasium.Env]) -> None:
        self._players = list(zip(experts, environments, strict=True))
        self.name = name_of(experts[0])

    def begin(
        self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """As `Policy.begin`."""
        for slot, seed in zip(slots, seeds, strict=True):
            expert, env = self._players[slot]
            try:
                expert.reset(env, seed)
            except Exception as error:
                raise SlotError(slot, f"the expert {name_of(expert)}", error) from error

    def decide(
        self, observations: Tree, infos: Sequence[Mapping[str, Any]], slots: Sequence[int]
    ) -> Decision:
        """As `Policy.decide`: each expert labels the state of its environment."""
        labels = []
        for row, slot in enumerate(slots):
            expert, env = self._players[slot]
            try:
                seen = tree_map(lambda leaf: leaf[row], observations)  # noqa: B023 - used at once
                labels.append(expert.label(seen, env))
            except Exception as error:
                raise SlotError(slot, f"the expert {name_of(expert)}", error) from error
        return Decision(actions=tree_stack(labels))

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`; does nothing, because experts forget an episode when the next begins."""


class RandomPolicy:
    """Uniformly random legal actions: they score 0 in every normalised score.

    Args:
        action_space: space of the actions.
    """

    name = RANDOM

    def __init__(self, action_space: gymnasium.Space) -> None:
        self._action_space = action_space
        self._spaces: dict[int, gymnasium.Space] = {}  # of each slot, with its random numbers

    def begin(
        self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """As `Policy.begin`."""
        for slot, seed in zip(slots, seeds, strict=True):
            space = copy.deepcopy(self._action_space)
            space.seed(int(random_stream(seed, Stream.RANDOM_POLICY).integers(2**31)))
            self._spaces[slot] = space

    def decide(
        self, observations: Tree, infos: Sequence[Mapping[str, Any]], slots: Sequence[int]
    ) -> Decision:
        """As `Policy.decide`."""
        pairs = zip(slots, infos, strict=True)
        actions = [self._spaces[slot].sample(info.get("action_mask")) for slot, info in pairs]
        return Decision(actions=tree_stack(actions))

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""
        for slot in slots:
            self._spaces.pop(slot, None)


def policy_named(
    task: str, name: str | None, environments: Sequence[gymnasium.Env]
) -> ExpertPolicy | RandomPolicy:
    """The policy of a name, to play in some environments of a task.

    Args:
        task: name of the task.
        name: `random`, or an expert's name as `get_expert` takes it; None for the task's default
            expert.
        environments: one environment per slot.

    Raises:
        UsageError: the task has no such expert.
    """
    if name == RANDOM:
        return RandomPolicy(environments[0].action_space)
    return ExpertPolicy([get_expert(task, name) for _ in environments], environments)


def name_of(expert: Expert) -> str:
    """The name of an expert in records: its `name`, else that of its class."""
    return getattr(expert, "name", type(expert).__name__)
