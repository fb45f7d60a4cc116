"""Numbers that their codes say little of: `gym/tests.tokenization.wide_env:Wide-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class WideEnv(gymnasium.Env):
    """Five steps; what is seen is far beyond the mu-law, within one wide bin, and fine."""

    observation_space = spaces.Dict(
        far=spaces.Box(-np.inf, np.inf, (2,), np.float32),
        coarse=spaces.Box(-1e5, 1e5, (1,), np.float32),
        fine=spaces.Box(-1, 1, (2,), np.float32),
        still=spaces.Box(-np.inf, np.inf, (1,), np.float32),
        nothing=spaces.Box(-1, 1, (0,), np.float32),
    )
    action_space = spaces.Box(0.0, np.inf, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def _observe(self) -> dict[str, np.ndarray]:
        draw = self.np_random.uniform
        return {
            "far": draw(1e3, 1e5, 2).astype(np.float32),
            "coarse": draw(10, 90, 1).astype(np.float32),
            "fine": draw(-1, 1, 2).astype(np.float32),
            "still": np.full(1, 0.25, np.float32),
            "nothing": np.zeros(0, np.float32),
        }

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.t += 1
        return self._observe(), 0.0, self.t == 5, False, {}


gymnasium.register("Wide-v0", entry_point=WideEnv)
