"""Spaces that few environments have: `gym/tests.tokenization.odd_env:Odd-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class OddEnv(gymnasium.Env):
    """Six steps; complains of any action outside its space."""

    observation_space = spaces.Dict(
        {
            "a/b": spaces.Box(0, 1, (5, 5, 3), np.bool_),
            7: spaces.Box(-40_000, 40_000, (2,), np.int32),
            "of nothing": spaces.Box(-1, 1, (0,), np.float32),
            "up": spaces.Tuple((spaces.Text(4), spaces.Box(3.0, np.inf, (), np.float64))),
        }
    )
    action_space = spaces.Dict(
        {
            "": spaces.Discrete(5000, start=-3),
            3: spaces.Box(np.array([0, 2, -np.inf]), np.array([np.inf, 2, -1]), dtype=np.float64),
            "say": spaces.Text(3, min_length=0, charset="yes no"),
            "ü.x": spaces.Tuple((spaces.MultiDiscrete([2, 3000]), spaces.MultiBinary((2, 2)))),
        }
    )

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: dict) -> tuple[dict, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 6, False, {}


gymnasium.register("Odd-v0", entry_point=OddEnv)
