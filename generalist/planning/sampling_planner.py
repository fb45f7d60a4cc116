"""Predictive sampling: vary the present plan in the simulator, go on with the best variant.

Howell et al. 2022, "Predictive Sampling" (arXiv:2212.00541), section 4. A plan is a linear spline
through knots at fixed times; a variant adds Gaussian noise to all of them.

Legend: H = steps of the horizon, K = knots of a plan, A = numbers of an action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.errors import UsageError
from generalist.planning.simulators import borrowed, simulator_of
from generalist.streams import Stream, random_stream

_SMALL = 0.01  # in units of features, so that nothing is divided by an extent of 0


class SamplingPlanner:
    """Labels a state with the first action of the best plan that `budget` simulator steps find.

    A state one step after the last one labelled continues its plan; any other begins a new one.
    Each variant is one of the best plan so far, or now and then of no plan at all. Where they
    earn the same, rewards show no way, and the best is the one that leads to what is newest in
    this episode: so it pumps a pendulum until there is a reward to be seen.

    budget: simulator steps for one decision.
    """

    default_budget = 512
    horizon_seconds, horizon_steps = 0.7, (25, 50)  # the time to look ahead, within these steps
    segments = 5  # of the spline
    noise = (0.05, 1.0)  # a variant's standard deviation, in halves of the range of actions
    fresh = 0.1  # share of variants that begin from nothing

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget or self.default_budget
        self.name = f"planner@{self.budget}"

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Forget the last plan; random numbers follow from `seed`."""
        self._rng = random_stream(seed, Stream.SAMPLING_PLANNER)
        self._simulator = simulator_of(env)
        self._action, width = _actions(env.action_space)
        least, most = self.horizon_steps
        seconds = self._simulator.step_seconds
        steps = most if seconds is None else round(self.horizon_seconds / seconds)
        # A small budget looks less far rather than at fewer than four plans.
        horizon = max(1, min(max(steps, least), most, self.budget // 4))
        self._spline = linear_spline(horizon, max(1, horizon // self.segments))
        self._no_plan = np.zeros((self._spline.shape[2], width))
        self._plan = self._no_plan
        self._planned_at: int | None = None
        self._label: Any = None
        self._seen = Seen()

    def label(self, observation: Any, env: gymnasium.Env) -> Any:
        """The action to take in the present state of `env`."""
        now = self._simulator.steps()
        if now == self._planned_at:  # asked twice about one state
            return self._label.copy()
        phase = now % len(self._spline)
        if self._planned_at is None or now != self._planned_at + 1:
            self._plan = self._no_plan
        elif phase == 0:  # the first knot is past
            self._plan = np.concatenate([self._plan[1:], self._plan[-1:]])
        self._planned_at = now
        self._seen.add(self._simulator.features())
        with borrowed(self._simulator, self._rng) as state:
            self._plan = self._improved(self._plan, self._spline[phase], state)
        self._label = self._action(self._spline[phase, 0] @ self._plan)
        return self._label.copy()

    def _improved(self, plan: np.ndarray, spline: np.ndarray, state: Any) -> np.ndarray:
        """The best of `plan` and variants of it. plan: (K, A); spline: (H, K)."""
        best = self._worth(spline @ plan, state)
        low, high = np.log(self.noise)
        for _ in range(self.budget // len(spline) - 1):
            base, scale = plan, np.exp(self._rng.uniform(low, high))
            if self._rng.random() < self.fresh:
                base, scale = self._no_plan, self.noise[1]
            variant = base + scale * self._rng.standard_normal(plan.shape)
            variant = np.clip(variant, -1.0, 1.0)
            worth = self._worth(spline @ variant, state)
            if worth > best:
                plan, best = variant, worth
        return plan

    def _worth(self, actions: np.ndarray, state: Any) -> tuple[float, float]:
        """The return of a plan's actions, (H, A), from `state` on; then how new that would be."""
        simulator = self._simulator
        total, path = 0.0, []
        for action in actions:
            reward, over = simulator.step(self._action(action))
            total += reward
            path.append(simulator.features())
            if over:
                break
        simulator.restore(state)
        return total, self._seen.newness(np.array(path))


class Seen:
    """The states of an episode so far, by their features. T = how many, N = features."""

    def __init__(self) -> None:
        self._states: list[np.ndarray] = []

    def add(self, features: np.ndarray) -> None:
        """One more state, (N,)."""
        self._states.append(features)
        self._all = np.array(self._states)  # (T, N)
        self._low, self._high = self._all.min(axis=0), self._all.max(axis=0)
        self._extent = self._high - self._low + _SMALL

    def newness(self, path: np.ndarray) -> float:
        """How far a path, (H, N), leads beyond what was seen, in units of the extent of that.

        That is how much it would widen the extent, and how far its end is from the nearest state.
        """
        low = np.minimum(path.min(axis=0), self._low)
        high = np.maximum(path.max(axis=0), self._high)
        wider = np.log((high - low + _SMALL) / self._extent).sum()
        ways = (self._all - path[-1]) / self._extent
        return float(wider + np.sqrt((ways * ways).sum(axis=1).min()))


def linear_spline(steps: int, every: int) -> np.ndarray:
    """Weights of knots that lie `every` steps apart, (every, steps, K) float64.

    Row [p, i] times the knots is the value i steps ahead, p steps after the first knot.
    """
    knots = (steps + every - 2) // every + 2
    at = (np.arange(every)[:, None] + np.arange(steps)) / every
    return np.maximum(0.0, 1.0 - np.abs(at[..., None] - np.arange(knots)))


def _actions(space: gymnasium.Space) -> tuple[Callable[[np.ndarray], Any], int]:
    """How an action is made from A numbers in [-1, 1], and A.

    One of several choices is the one with the largest number. An action without bounds is taken
    to have those of -1 and 1. Raises UsageError for other spaces.
    """
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return lambda numbers: start + np.argmax(numbers), int(space.n)
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        low = np.where(np.isfinite(space.low), space.low, -1.0).astype(np.float64)
        high = np.where(np.isfinite(space.high), space.high, 1.0).astype(np.float64)
        middle, half = (low + high) / 2.0, (high - low) / 2.0
        lowest, highest, dtype = space.low, space.high, space.dtype
        return (
            lambda numbers: np.clip((middle + half * numbers).astype(dtype), lowest, highest),
            len(low),
        )
    raise UsageError(f"Predictive sampling plans vectors and choices, no actions in {space}.")
