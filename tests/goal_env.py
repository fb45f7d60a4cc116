"""An environment whose arguments change what is right, and neither of its spaces."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Goal(gymnasium.Env):
    """Eight steps, each worth 1 for the action `goal`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    action_space = spaces.Discrete(3)

    def __init__(
        self, goal: int = 0, high: float = 1.0, wide: bool = False, render_mode: str | None = None
    ) -> None:
        self.goal, self.render_mode = goal, render_mode
        self.observation_space = spaces.Box(-1.0, high, (4 if wide else 3,), np.float32)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        reward = float(int(action) == self.goal)
        return self._observation(), reward, self.steps == 8, False, {}

    def _observation(self) -> np.ndarray:
        return np.zeros(self.observation_space.shape, np.float32)

    def render(self) -> np.ndarray:
        return np.full((60, 80, 3), 200, np.uint8)


class Best:
    """Knows the goal."""

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        pass

    def label(self, observation: Any, env: gymnasium.Env) -> np.int64:
        return np.int64(env.unwrapped.goal)  # type: ignore[attr-defined]


gymnasium.register("Goal-v0", entry_point=Goal)
