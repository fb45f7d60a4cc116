"""Episodes from an expert whose execution is disturbed while its labels stay its own.

Legend: T = steps of the episode.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np

from generalist.episode import Episode
from generalist.errors import UsageError
from generalist.experts.registry import Expert
from generalist.session import Trace
from generalist.streams import Stream, random_stream


class Disturbance:
    """Replaces a share `noise` of all actions by random ones, in bursts.

    Time is cut into segments of geometric length with mean `burst_steps`; a segment is disturbed
    with probability `noise` and then holds one random action. With 1.0 every step is drawn on
    its own. A single random step hardly moves a paddle in Atari; a burst leads to the states
    that a clone's own mistakes lead to. Where a mask says which actions are legal, each step of a
    segment draws a legal one.
    """

    def __init__(
        self, space: gymnasium.Space, noise: float, burst_steps: float, rng: np.random.Generator
    ) -> None:
        if not 0.0 <= noise <= 1.0:
            raise UsageError(f"noise is the share of random actions, from 0 to 1; got {noise}.")
        if burst_steps < 1.0:
            raise UsageError(f"burst_steps is a mean length of at least 1 step; got {burst_steps}.")
        self._space = copy.deepcopy(space)
        self._space.seed(int(rng.integers(2**31)))
        self._rng = rng
        self._noise = noise
        self._new_segment = 1.0 / burst_steps
        self._held = self._draw()

    def _draw(self) -> Any:
        return self._space.sample() if self._rng.random() < self._noise else None

    def __call__(self, action: Any, mask: Any = None) -> Any:
        """The action to execute in place of `action`; mask: `info["action_mask"]` of the state."""
        if self._rng.random() < self._new_segment:
            self._held = self._draw()
        if self._held is None:
            return action
        return self._held if mask is None else self._space.sample(mask)


def collect_episode(
    env: gymnasium.Env,
    task: str,
    expert: Expert,
    seed: int,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
    burst_steps: float = 1.0,
    max_steps: int | None = None,
) -> Episode:
    """One episode demonstrated by `expert` in `env`, reset with `seed`.

    noise: share of executed actions that are random; the labels are the expert's own actions.
    rng: where the noise comes from, by default a generator made from `seed`.
    max_steps: cut (truncate) the episode there, below the task's own limit.
    """
    rng = rng if rng is not None else random_stream(seed, Stream.NOISE)
    disturb = Disturbance(env.action_space, noise, burst_steps, rng)
    trace = Trace(env, task, seed, keep_steps=True, max_steps=max_steps)
    name = getattr(expert, "name", type(expert).__name__)
    try:
        expert.reset(env, seed)
    except Exception as error:
        trace.blame(f"the expert {name}", error)
    while not trace.done:
        mask = trace.mask
        if isinstance(expert, RandomPolicy):
            expert.mask = mask
        try:
            label = expert.label(trace.observation, env)
        except Exception as error:
            trace.blame(f"the expert {name}", error)
        trace.labels.append(label)
        trace.step(disturb(label, mask))
    if noise == 0:
        trace.labels.clear()  # they are the actions
    return trace.to_episode(
        {"expert": name, "noise": float(noise), "burst_steps": float(burst_steps)}
    )


class RandomPolicy:
    """Uniformly random actions: the floor of every normalised score.

    mask: `info["action_mask"]` of the current state, where the environment says which actions are
        legal; only those are drawn. `collect_episode` keeps it up to date.
    """

    name = "random"
    mask: Any = None

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Seed the action space; the environment's own randomness stays apart."""
        self._space = copy.deepcopy(env.action_space)
        self._space.seed(int(random_stream(seed, Stream.RANDOM_POLICY).integers(2**31)))

    def label(self, observation: Any, env: gymnasium.Env) -> Any:
        """A random action, a legal one."""
        return self._space.sample(self.mask)


def random_episode(
    env: gymnasium.Env, task: str, seed: int, max_steps: int | None = None
) -> Episode:
    """One episode of uniformly random actions."""
    return collect_episode(env, task, RandomPolicy(), seed, max_steps=max_steps)
