"""Environments that a user might really bring, each with one fault."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces


class Faulty(gymnasium.Env):
    """Ten steps of zeros; `nan_at` says at which step an observation is not a number."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(
        self, nan_at: int | None = None, graph: bool = False, render_mode: str | None = None
    ) -> None:
        self.render_mode = render_mode
        self.nan_at = nan_at
        if graph:
            self.observation_space = spaces.Graph(spaces.Box(-1.0, 1.0, (2,)), None)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.step_count = 0
        return self._observation(), {}

    def step(self, action):
        self.step_count += 1
        return self._observation(), 1.0, self.step_count >= 10, False, {}

    def _observation(self):
        value = np.nan if self.step_count == self.nan_at else 0.0
        return np.array([0.0, value], np.float32)


gymnasium.register("Fine-v0", lambda **options: Faulty(**options))
gymnasium.register("NotANumber-v0", lambda **options: Faulty(nan_at=4, **options))
gymnasium.register("Graph-v0", lambda **options: Faulty(graph=True, **options))
