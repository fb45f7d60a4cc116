"""Episodes acted by an agent: many environments at once, each episode with a seed of its own.

Environments are stepped one after the other in this process and the agent acts in all of them in
one batch. Nothing resets by itself: an environment whose episode has ended takes the next seed;
when no seed is left the batch shrinks. An episode depends on its seed alone, so each is counted
once and comes out the same however many environments run side by side. Where an environment says
which actions are legal (`info["action_mask"]`, as Gymnasium has it), the agent takes no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from generalist.episode import Tree, tree_map, tree_stack
from generalist.experts.collect import RandomPolicy
from generalist.session import Trace

if TYPE_CHECKING:
    from generalist.acting.agent import Agent
    from generalist.experts import Expert

Watcher = Callable[[Trace], None]


def act_episodes(
    agent: Agent,
    environments: Sequence[gymnasium.Env],
    seeds: Sequence[int],
    *,
    experts: Sequence[Expert] | None = None,
    keep_steps: bool = False,
    watch: Watcher | None = None,
    max_steps: int | None = None,
    instruction: str | None = None,
) -> Iterator[Trace]:
    """Act one episode for each seed; yield each as it ends, in no order of the seeds.

    environments: one for each episode that runs at a time. experts: one for each environment,
    asked for its label at every state before the agent's action is executed.
    watch: called at the reset and after every step of every episode.
    max_steps: cut (truncate) an episode there, below the task's own limit.
    instruction: told the agent in place of what the environment says.
    """
    waiting = iter(seeds)
    running: dict[int, Trace] = {}

    def begin(slot: int) -> None:
        seed = next(waiting, None)
        if seed is None:
            running.pop(slot, None)
            agent.end([slot])
            return
        trace = Trace(
            environments[slot], agent.task, seed, keep_steps=keep_steps, max_steps=max_steps
        )
        if instruction is not None:
            trace.instruction = instruction
        if experts is not None:
            _ask(trace, experts[slot], begin=True)
        running[slot] = trace
        if watch is not None:
            watch(trace)

    for slot in range(len(environments)):
        begin(slot)
    while running:
        slots = sorted(running)
        traces = [running[slot] for slot in slots]
        masks = [trace.mask for trace in traces]
        actions = agent.act(
            tree_stack([trace.observation for trace in traces]),
            np.array([not trace.steps for trace in traces]),
            instructions=[trace.instruction for trace in traces],
            action_masks=None if all(mask is None for mask in masks) else masks,
            slots=slots,
            seeds=[trace.seed for trace in traces],
        )
        for i, (slot, trace) in enumerate(zip(slots, traces, strict=True)):
            if experts is not None:
                _ask(trace, experts[slot])
            trace.step(_row(actions, i))
            if watch is not None:
                watch(trace)
            if trace.done:
                yield trace
                begin(slot)


def expert_episodes(
    expert: Expert, env: gymnasium.Env, task: str, seeds: Sequence[int], *, watch: Watcher
) -> Iterator[Trace]:
    """Episodes of an expert, or of random play, one for each seed."""
    for seed in seeds:
        trace = Trace(env, task, seed)
        _ask(trace, expert, begin=True)
        watch(trace)
        while not trace.done:
            if isinstance(expert, RandomPolicy):
                expert.mask = trace.mask
            _ask(trace, expert)
            trace.step(trace.labels[-1])
            watch(trace)
        yield trace


def _row(actions: Tree, index: int) -> Any:
    return tree_map(lambda leaf: leaf[index], actions)


def _ask(trace: Trace, expert: Expert, begin: bool = False) -> None:
    """Begin an episode with an expert, or keep its label of the present state."""
    try:
        if begin:
            expert.reset(trace.env, trace.seed)
        else:
            trace.labels.append(expert.label(trace.observation, trace.env))
    except Exception as error:
        trace.blame(f"the expert {getattr(expert, 'name', type(expert).__name__)}", error)
