"""Episodes of experts, weakened in what is executed, but not in the labels."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

import gymnasium
import numpy as np

from generalist.episode import Episode
from generalist.errors import UsageError
from generalist.experts.policies import ExpertPolicy, RandomPolicy
from generalist.experts.registry import Expert
from generalist.session import play
from generalist.streams import Stream, random_stream


class Disturbance:
    """Executes actions late, and replaces a share `noise` of them by random ones, in bursts.

    Segments of geometric length with mean `burst_steps` divide an episode. A segment is disturbed
    with probability `noise`, and then holds one random action. With `burst_steps` of 1 each step
    is drawn on its own. Under a mask of legal actions each step of a segment draws a legal action.

    A single random step hardly moves a paddle in Atari. A burst leads to states like those that a
    clone reaches by its own mistakes. A delay makes another policy of a demonstrator: it overshoots
    in every state alike, and no average over its actions is the expert's own.

    Args:
        space: the action space.
        noise: share of random actions, in [0, 1].
        burst_steps: mean length of a segment in steps, at least 1.
        rng: random numbers of the episode.
        delay_steps: how many steps late an action is executed, at least 0; before the first is due,
            the first is. Under a mask nothing is delayed.

    Raises:
        UsageError: `noise`, `burst_steps` or `delay_steps` is out of range.
    """

    def __init__(
        self,
        space: gymnasium.Space,
        noise: float,
        burst_steps: float,
        rng: np.random.Generator,
        delay_steps: int = 0,
    ) -> None:
        if not 0.0 <= noise <= 1.0:
            raise UsageError(f"noise is the share of random actions, from 0 to 1; got {noise}.")
        if burst_steps < 1.0:
            raise UsageError(f"burst_steps is a mean length of at least 1 step; got {burst_steps}.")
        if delay_steps < 0:
            raise UsageError(f"delay_steps is a number of steps, 0 or more; got {delay_steps}.")
        self._late: deque[Any] = deque(maxlen=delay_steps + 1)  # the first is due now
        self._space = copy.deepcopy(space)
        self._space.seed(int(rng.integers(2**31)))
        self._rng = rng
        self._noise = noise
        self._new_segment = 1.0 / burst_steps
        self._held = self._draw()

    def _draw(self) -> Any:
        return self._space.sample() if self._rng.random() < self._noise else None

    def __call__(self, action: Any, mask: Any = None) -> Any:
        """The action to execute in place of `action`.

        Args:
            action: the policy's action.
            mask: `info["action_mask"]` of the state; None: all actions are legal.
        """
        if self._rng.random() < self._new_segment:
            self._held = self._draw()
        self._late.append(action)
        if self._held is None:
            return action if mask is not None else self._late[0]
        return self._held if mask is None else self._space.sample(mask)


def demonstrate(
    policy: ExpertPolicy | RandomPolicy,
    env: gymnasium.Env,
    task: str,
    seed: int,
    *,
    noise: float = 0.0,
    burst_steps: float = 1.0,
    delay_steps: int = 0,
    max_steps: int | None = None,
) -> Episode:
    """Play one episode by `policy` in `env`, its slot 0.

    Args:
        policy: an expert or random play.
        env: the environment; it is reset here.
        task: name of the environment's task.
        seed: seed of the environment, the policy and the noise.
        noise: share of executed actions that are random. The labels are the policy's own actions.
        burst_steps: mean length of a burst of random actions, in steps.
        delay_steps: how many steps late the policy's actions are executed.
        max_steps: cut (truncate) the episode there, below the task's own limit.

    Raises:
        UsageError: `noise`, `burst_steps` or `delay_steps` is out of range.
        EpisodeError: the environment or the expert fails.
    """

    def disturbance(env: gymnasium.Env, seed: int) -> Disturbance:
        random = random_stream(seed, Stream.NOISE)
        return Disturbance(env.action_space, noise, burst_steps, random, delay_steps)

    (trace,) = play(
        policy,
        [env],
        [seed],
        task=task,
        keep_steps=True,
        max_steps=max_steps,
        disturb=disturbance if noise or delay_steps else None,
    )
    strength = {"noise": float(noise), "burst_steps": float(burst_steps)}
    if delay_steps:
        strength["delay_steps"] = delay_steps
    return trace.to_episode({"expert": policy.name, **strength})


def collect_episode(
    env: gymnasium.Env, task: str, expert: Expert, seed: int, **options: Any
) -> Episode:
    """Play one episode by an expert; see `demonstrate` for `options`."""
    return demonstrate(ExpertPolicy([expert], [env]), env, task, seed, **options)


def random_episode(
    env: gymnasium.Env, task: str, seed: int, *, max_steps: int | None = None
) -> Episode:
    """Play one episode of uniformly random legal actions; see `demonstrate`."""
    return demonstrate(RandomPolicy(env.action_space), env, task, seed, max_steps=max_steps)
