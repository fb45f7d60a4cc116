"""Episodes acted by an agent: many environments at once, each episode with a seed of its own.

Environments are stepped one after the other in this process and the agent acts in all of them in
one batch. Nothing resets by itself: an environment whose episode has ended takes the next seed;
when no seed is left the batch shrinks. An episode depends on its seed alone, so each is counted
once and comes out the same however many environments run side by side. Where an environment says
which actions are legal (`info["action_mask"]`, as Gymnasium has it), the agent takes no other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from generalist.episode import Episode, Tree, success_so_far, tree_map, tree_stack

if TYPE_CHECKING:
    from generalist.acting.agent import Agent
    from generalist.experts import Expert

Watcher = Callable[[gymnasium.Env, "Trace"], None]


@dataclass
class Trace:
    """One episode as it goes on."""

    seed: int
    observation: Any  # the latest
    instruction: str | None
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None  # what info["success"] has said so far
    action: Any = None  # the latest
    action_mask: np.ndarray | None = None  # the actions that are legal now, where it says
    observations: list[Any] = field(default_factory=list)  # these three only if kept
    actions: list[Any] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated

    @property
    def return_(self) -> float:
        """Sum of the raw rewards so far."""
        return float(np.sum(self.rewards, dtype=np.float64))

    def to_episode(self, task: str, info: dict[str, Any]) -> Episode:
        """The whole episode, where its steps were kept."""
        return Episode(
            task=task,
            observations=tree_stack(self.observations),
            actions=tree_stack(self.actions),
            rewards=np.asarray(self.rewards, np.float32),
            terminated=self.terminated,
            truncated=self.truncated,
            labels=tree_stack(self.labels) if self.labels else None,
            instruction=self.instruction,
            info={
                "seed": self.seed,
                **({} if self.success is None else {"success": self.success}),
                **info,
            },
        )


def act_episodes(
    agent: Agent,
    environments: Sequence[gymnasium.Env],
    seeds: Sequence[int],
    experts: Sequence[Expert] | None = None,
    keep_steps: bool = False,
    watch: Watcher | None = None,
    max_steps: int | None = None,
) -> Iterator[Trace]:
    """Act one episode for each seed; yield each as it ends, in no order of the seeds.

    environments: one for each episode that runs at a time. experts: one for each environment,
    asked for its label at every state before the agent's action is executed.
    watch: called at the reset and after every step of the episode with the first seed.
    max_steps: cut (truncate) an episode there, below the task's own limit.
    """
    waiting = iter(seeds)
    running: dict[int, Trace] = {}
    begins: dict[int, bool] = {}

    def begin(slot: int) -> None:
        seed = next(waiting, None)
        if seed is None:
            running.pop(slot, None)
            agent.release([slot])
            return
        observation, info = environments[slot].reset(seed=int(seed))
        if experts is not None:
            experts[slot].reset(environments[slot], int(seed))
        running[slot] = Trace(int(seed), observation, info.get("instruction"))
        running[slot].action_mask = info.get("action_mask")
        begins[slot] = True
        if watch is not None and seed == seeds[0]:
            watch(environments[slot], running[slot])

    for slot in range(len(environments)):
        begin(slot)
    while running:
        slots = sorted(running)
        traces = [running[slot] for slot in slots]
        actions = agent.act(
            tree_stack([trace.observation for trace in traces]),
            np.array([begins[slot] for slot in slots]),
            [trace.instruction for trace in traces],
            slots,
            [trace.seed for trace in traces],
            [trace.action_mask for trace in traces] if agent.layout.takes_masks else None,
        )
        for i, (slot, trace) in enumerate(zip(slots, traces, strict=True)):
            env, begins[slot] = environments[slot], False
            expert = None if experts is None else experts[slot]
            _step(env, trace, _row(actions, i), expert, keep_steps)
            if max_steps is not None and len(trace.rewards) >= max_steps:
                trace.truncated = not trace.terminated
            if watch is not None and trace.seed == seeds[0]:
                watch(env, trace)
            if trace.done:
                yield trace
                begin(slot)


def _row(actions: Tree, index: int) -> Any:
    return tree_map(lambda leaf: leaf[index], actions)


def _step(
    env: gymnasium.Env, trace: Trace, action: Any, expert: Expert | None, keep_steps: bool
) -> None:
    if keep_steps:
        trace.observations.append(copy.deepcopy(trace.observation))
        trace.actions.append(action)
    if expert is not None:
        trace.labels.append(expert.label(trace.observation, env))
    trace.observation, reward, terminated, truncated, info = env.step(action)
    trace.success = success_so_far(trace.success, info)
    trace.action, trace.action_mask = action, info.get("action_mask")
    trace.rewards.append(float(reward))
    trace.terminated, trace.truncated = bool(terminated), bool(truncated)
