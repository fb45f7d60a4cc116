"""Unrolls: what a policy did in all environments for a number of steps, and minibatches of them.

Shapes: E = environments, T = steps, K = tokens of an observation, k = action tokens, C = timesteps
that are seen together, at most; n environments of a task, B of a minibatch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from generalist.tokenization.layout import Layout
from generalist.training.reinforcement.crew import Outcome, Seen, Stepped
from generalist.training.reinforcement.fleet import Fleet
from generalist.training.reinforcement.legal import bounds_of
from generalist.training.reinforcement.objective import COLUMNS, UnrollPass
from generalist.training.reinforcement.policy import (
    Flags,
    act,
    log_probs_taken,
    tokens_of,
    values_at,
)
from generalist.training.reinforcement.recipe import ReinforcementRecipe
from generalist.training.reinforcement.timesteps import Shower, States, counted
from generalist.training.reinforcement.vtrace import v_trace


class Places(Protocol):
    """The part of a fleet that says which environment is whose."""

    @property
    def shower(self) -> Shower:
        """Knows the tasks."""

    @property
    def of_task(self) -> list[slice]:
        """For each task which of the environments are its own."""


@dataclass(frozen=True, kw_only=True)
class Unroll:
    """T steps of all environments.

    Attributes:
        observations: for each task (n, C - 1 + T + 1, K) int32 ids: what is seen of the time before
            the first step (zeros where nothing is), the steps, and the state after the last one.
        in_view: (E, T + 1) int64, how many timesteps are seen in each state, itself included.
        headers: (E, T + 1) int64 numbers of the headers that the states stand behind.
        ids: (E, T, most k) int64 ids of the actions.
        legal: for each task that masks its actions, by its number, (n, T, W / 8) uint8: the flags
            of `Legal` when the actions were chosen, eight in a byte.
        log_probs: (E, T) float32 of the actions, when they were chosen.
        reference: (E, T) float32 of the actions, under the policy that the run starts with.
        rewards: (E, T) float32, as they are learned from; where a limit cut an episode, with the
            discounted value of the state behind.
        discounts: (E, T) float32, of what follows a step; 0 where the episode ended.
        values: (E, T + 1) float32 of the states, when they were seen.
        usable: (E,) bool, False where the environment failed.
    """

    observations: tuple[np.ndarray, ...]
    in_view: np.ndarray
    headers: np.ndarray
    ids: np.ndarray
    legal: dict[int, np.ndarray]
    log_probs: np.ndarray
    reference: np.ndarray
    rewards: np.ndarray
    discounts: np.ndarray
    values: np.ndarray
    usable: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name."""
        named = {name: x for name, x in vars(self).items() if isinstance(x, np.ndarray)}
        named |= {f"legal/{i}": each for i, each in self.legal.items()}
        return named | {f"observations/{i}": each for i, each in enumerate(self.observations)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], tasks: int) -> Unroll:
        """Inverse of `arrays`."""
        named = {name: each for name, each in arrays.items() if "/" not in name}
        observations = tuple(arrays[f"observations/{i}"] for i in range(tasks))
        masked = [i for i in range(tasks) if f"legal/{i}" in arrays]
        legal = {i: arrays[f"legal/{i}"] for i in masked}
        return cls(observations=observations, legal=legal, **named)

    def flags(self, layouts: Sequence[Layout], rows: Mapping[int, np.ndarray]) -> Flags:
        """Which ids were legal, timestep by timestep, environment by environment.

        Args:
            layouts: of the tasks, by number.
            rows: for each task its environments that are meant, counted within the task.
        """
        found = {}
        for number, mine in rows.items():
            if number in self.legal:
                width = int(bounds_of(layouts[number])[-1])
                bits = np.unpackbits(self.legal[number][mine], axis=-1, count=width)
                found[number] = bits.reshape(-1, width).astype(bool)
        return found

    def targets(self, trace_decay: float) -> np.ndarray:
        """(E, T) float64, what the values should be, by the values and the policy that acted."""
        arrays = (self.rewards, self.discounts, self.values, np.ones_like(self.rewards))
        given = (torch.from_numpy(each) for each in arrays)
        return v_trace(*given, trace_decay=trace_decay).values.double().numpy()


@dataclass(frozen=True)
class Played:
    """An unroll, and what happened in it.

    Attributes:
        unroll: the unroll.
        finished: the episodes that ended.
        steps: how many were played, in all environments together.
    """

    unroll: Unroll
    finished: list[Outcome]
    steps: int


def play_unroll(
    model: Any,
    fleet: Fleet,
    recipe: ReinforcementRecipe,
    *,
    random: torch.Generator,
    version: int = 0,
    reference: Any = None,
) -> Played:
    """Play T steps in every environment, at temperature 1.

    Args:
        model: acts; it has embedders and values.
        fleet: the environments.
        recipe: says T, discount, scale and clip of rewards.
        random: draws the actions.
        version: of the model's weights, for the episodes that are recorded.
        reference: the model that the run started with; None where nobody asks for it.
    """
    model.eval()
    steps, count = recipe.unroll, len(fleet)
    seen, headers, chosen = [], [], []
    rewards, discounts = (np.zeros((count, steps), np.float32) for _ in range(2))
    usable, finished = np.ones(count, bool), []
    cuts: list[tuple[int, int, Seen]] = []  # step, environment, the state behind
    for step in range(steps):
        states = fleet.observe()
        acted = act(model, fleet.shower, states, random)
        stepped = fleet.step(acted.ids, version)
        seen.append(states)
        chosen.append(acted)
        rewards[:, step] = _learned_from(stepped, fleet, recipe)
        discounts[:, step] = recipe.discount * stepped.going_on
        usable &= ~stepped.failed
        finished += stepped.finished
        cuts += [(step, number, seen) for number, seen in _with_a_future(stepped, recipe)]
    last = fleet.observe()
    seen.append(last)
    behind = [fleet.states_of(state) for *_, state in cuts]
    worth = values_at(model, fleet.shower, behind) if behind else []
    for (step, number, _), value in zip(cuts, worth, strict=True):
        rewards[number, step] += recipe.discount * value
    headers = [np.concatenate([part.headers for part in states]) for states in seen]
    values = [each.values for each in chosen] + [values_at(model, fleet.shower, last)]
    unroll = Unroll(
        observations=tuple(
            _observations([states[task] for states in seen], context)
            for task, context in enumerate(fleet.contexts)
        ),
        in_view=np.stack(
            [np.concatenate([part.counts for part in states]) for states in seen], axis=1
        ),
        headers=np.stack(headers, axis=1),
        ids=np.stack([each.ids for each in chosen], axis=1),
        legal=_packed(fleet, [each.legal for each in chosen]),
        log_probs=np.stack([each.log_probs for each in chosen], axis=1),
        reference=np.zeros((count, steps), np.float32),
        rewards=rewards,
        discounts=discounts,
        values=np.stack(values, axis=1),
        usable=usable,
    )
    if reference is not None:
        _ask(reference, fleet, unroll)
    return Played(unroll, finished, rewards.size)


def _learned_from(stepped: Stepped, fleet: Fleet, recipe: ReinforcementRecipe) -> np.ndarray:
    """(E,) float32, the rewards of a step as they are learned from."""
    learned = stepped.rewards.copy()
    for part, task in zip(fleet.of_task, recipe.tasks.values(), strict=True):
        if task.success_only:
            learned[part] = stepped.succeeded[part]
        learned[part] *= task.reward_scale
    if recipe.reward_clip is not None:
        learned = learned.clip(-recipe.reward_clip, recipe.reward_clip)
    return learned


def _with_a_future(stepped: Stepped, recipe: ReinforcementRecipe) -> list[tuple[int, Seen]]:
    """Environments whose episode a limit cut, with the state behind, where more could be earned.

    Not where success alone is learned from and was reached: an episode succeeds once.
    """
    tasks = list(recipe.tasks.values())
    return [
        (number, seen)
        for number, seen in sorted(stepped.cut.items())
        if not (tasks[seen.task].success_only and stepped.succeeded[number])
    ]


def _observations(seen: Sequence[States], context: int) -> np.ndarray:
    """`Unroll.observations` of a task.

    Args:
        seen: its states in the T steps, and behind them.
        context: C.
    """
    first = seen[0]
    steps = np.stack([states.ids[states.chosen] for states in seen], axis=1)
    before = np.zeros((len(steps), context - 1, steps.shape[2]), steps.dtype)
    for row, (stop, count) in enumerate(zip(first.chosen, first.counts, strict=True)):
        if count > 1:
            before[row, 1 - count :] = first.ids[stop + 1 - count : stop]
    return np.concatenate([before, steps], axis=1).astype(np.int32)


def _packed(fleet: Fleet, flags: Sequence[Flags]) -> dict[int, np.ndarray]:
    """`Unroll.legal` of the flags of T steps."""
    packed = {}
    for number in sorted({number for each in flags for number in each}):
        part = fleet.of_task[number]
        width = int(bounds_of(fleet.shower.layouts[number])[-1])
        everything = np.ones((part.stop - part.start, width), bool)
        steps = [each.get(number, everything) for each in flags]
        packed[number] = np.packbits(np.stack(steps, axis=1), axis=-1)
    return packed


def _ask(reference: Any, fleet: Fleet, unroll: Unroll) -> None:
    """Fill in what the policy that the run started with says of the actions."""
    steps = unroll.ids.shape[1]
    states = [
        states_of_unroll(unroll, fleet, number, slice(None, steps))
        for number in range(len(fleet.of_task))
    ]
    ids = unroll.ids.reshape(-1, unroll.ids.shape[2])
    rows = {task: np.arange(part.stop - part.start) for task, part in enumerate(fleet.of_task)}
    legal = unroll.flags(fleet.shower.layouts, rows)
    said = log_probs_taken(reference, fleet.shower, states, ids, legal)
    unroll.reference[:] = said.reshape(unroll.reference.shape)


def states_of_unroll(
    unroll: Unroll, fleet: Places, number: int, steps: slice, rows: np.ndarray | None = None
) -> States:
    """States of a task's environments, environment by environment.

    Args:
        unroll: holds them.
        fleet: says which environments are the task's.
        number: of the task.
        steps: which states.
        rows: which environments, counted within the task; None for all.
    """
    observations, mine = unroll.observations[number], fleet.of_task[number]
    headers, in_view = unroll.headers[mine], unroll.in_view[mine]
    if rows is not None:
        observations, headers, in_view = observations[rows], headers[rows], in_view[rows]
    headers, in_view = headers[:, steps], in_view[:, steps]
    count = headers.shape[1]
    places = np.arange(count) + observations.shape[1] - unroll.headers.shape[1]
    begins = places + 1 - in_view  # the first timestep that each state sees
    # States that see from the same timestep on, behind the same header, are of one run.
    new = np.ones(headers.shape, bool)
    new[:, 1:] = (begins[:, 1:] != begins[:, :-1]) | (headers[:, 1:] != headers[:, :-1])
    row, step = np.nonzero(new)
    states = np.diff(np.append(np.flatnonzero(new), new.size))  # of each run
    first = begins[row, step]
    counts = places[step] + states - first
    within = counted(counts) + np.repeat(first, counts)
    ends = np.cumsum(counts)
    return States(
        number,
        headers[row, step],
        observations[np.repeat(row, counts), within].astype(np.int64),
        counts=counts,
        chosen=np.repeat(ends - states, states) + counted(states),
    )


def minibatches(unroll: Unroll, fleet: Places, count: int, seed: Sequence[int]) -> list[list[int]]:
    """Environments in `count` groups, in each of which every task has its share.

    No group is empty: where fewer environments are usable than there are groups, some are in two.
    Where none is usable there are no groups.

    Args:
        unroll: its failed environments are left out.
        fleet: says which environments are whose.
        count: number of minibatches.
        seed: decides the groups.
    """
    random = np.random.default_rng(seed)
    groups: list[list[int]] = [[] for _ in range(count)]
    for part in fleet.of_task:
        mixed = random.permutation(np.arange(part.start, part.stop))
        mixed = mixed[unroll.usable[mixed]]
        for group, share in zip(groups, np.array_split(mixed, count), strict=True):
            group += sorted(share.tolist())
    some = [group for group in groups if group]
    return [group or some[number % len(some)] for number, group in enumerate(groups) if some]


def pass_of(
    unroll: Unroll,
    fleet: Places,
    environments: Sequence[int],
    *,
    scale: np.ndarray,
    weight: Mapping[str, float],
) -> UnrollPass:
    """The forward pass over the unrolls of some environments.

    Args:
        unroll: holds them.
        fleet: says whose they are.
        environments: their numbers, ascending.
        scale: (tasks,) float32, what advantages of each task are divided by.
        weight: of the objective's columns in the loss; others count nothing.
    """
    chosen = np.asarray(environments)
    states, task, rows_of = [], [], {}
    for number, part in enumerate(fleet.of_task):
        rows = chosen[(chosen >= part.start) & (chosen < part.stop)] - part.start
        if len(rows):
            states.append(states_of_unroll(unroll, fleet, number, slice(None), rows))
            task += [number] * len(rows)
            rows_of[number] = rows
    timesteps = fleet.shower.lay_out(states)
    steps = unroll.rewards.shape[1]
    # The first action tokens of the steps; the state after the last one chooses none.
    first = timesteps.first.numpy().reshape(len(chosen), steps + 1)[:, :-1].reshape(-1)
    ids = unroll.ids[chosen].reshape(-1, unroll.ids.shape[2])
    of_step = np.repeat(np.array(task), steps)
    layouts = fleet.shower.layouts
    legal = unroll.flags(layouts, rows_of)
    return UnrollPass(
        timesteps=timesteps,
        tokens=tokens_of(layouts, of_step, first, ids, legal=legal),
        task=torch.tensor(task),
        rewards=_tensor(unroll.rewards[chosen]),
        discounts=_tensor(unroll.discounts[chosen]),
        behaviour=_tensor(unroll.log_probs[chosen]),
        reference=_tensor(unroll.reference[chosen]),
        scale=_tensor(scale[task].astype(np.float32)),
        weight=torch.tensor([float(weight.get(name, 0.0)) for name in COLUMNS]),
    )


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
