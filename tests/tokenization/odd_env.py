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


class ChessLikeEnv(gymnasium.Env):
    """A few of thousands of moves are legal, others in each state, as in chess; six steps."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Dict({0: spaces.Discrete(4672), 1: spaces.MultiDiscrete([2, 1500])})

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {"action_mask": self._draw()}

    def _draw(self) -> dict[int, Any]:
        def few(count: int) -> np.ndarray:
            chosen = self.np_random.choice(count, min(count, 3), replace=False)
            return np.isin(np.arange(count), chosen).astype(np.int8)

        self.mask = {0: few(4672), 1: (few(2), few(1500))}
        return self.mask

    def step(self, action: dict) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        first, (second, third) = self.mask[0], self.mask[1]
        legal = first[action[0]] and second[action[1][0]] and third[action[1][1]]
        self.t += 1
        info = {"action_mask": self._draw()}
        return np.zeros(2, np.float32), float(legal), self.t == 6, False, info


gymnasium.register("Odd-v0", entry_point=OddEnv)
gymnasium.register("ChessLike-v0", entry_point=ChessLikeEnv)
