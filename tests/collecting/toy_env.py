"""An environment that misbehaves at chosen seeds: `gym/tests.collecting.toy_env:Toy-v0`."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class ToyEnv(gymnasium.Env):
    """Ten steps towards a target; `raises_at`, `nan_at`, `dies_at` name seeds of trouble.

    fault: what goes wrong in the fourth step of seed 1.
    """

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(
        self,
        render_mode: str | None = None,
        raises_at: int = -1,
        nan_at: int = -1,
        dies_at: int = -1,
        seconds: float = 0.0,
        dies_when_made: bool = False,
        fault: str = "",
    ) -> None:
        if dies_when_made:
            os._exit(7)
        self.raises_at, self.nan_at, self.dies_at = raises_at, nan_at, dies_at
        self.seconds, self.fault = seconds, fault

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        if seed == self.dies_at:
            os._exit(7)
        if seed == self.raises_at:
            raise RuntimeError("the simulator gave up")
        self.t, self.broken, self.at_fault = 0, seed == self.nan_at, seed == 1 and self.fault
        time.sleep(self.seconds)
        instruction: Any = f"reach {seed % 3}"
        if self.at_fault == "instruction":
            instruction = ["reach", seed]
        elif self.at_fault == "half a character":
            instruction = "\ud800"
        return self._observe(), {"instruction": instruction}

    def _observe(self) -> np.ndarray:
        observation = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        if self.broken and self.t == 4:
            observation[1] = np.nan
        return observation

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        observation, reward = self._observe(), float(action[0])
        if self.at_fault and self.t == 4:
            if self.fault == "exception":
                raise KeyError("the simulator gave up")
            if self.fault == "exit":
                sys.exit("the simulator had enough")
            if self.fault == "reward":
                return observation, np.array([reward]), False, False, {}
            if self.fault == "growth":
                return np.zeros(3, np.float32), reward, False, False, {}
        return observation, reward, self.t == 10, False, {}

    def close(self) -> None:
        if self.fault == "close" or getattr(self, "at_fault", False):
            raise RuntimeError("it cannot be closed either")


class ToyExpert:
    """Repeats the first number it sees."""

    name = "toy"

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        pass

    def label(self, observation: np.ndarray, env: gymnasium.Env) -> np.ndarray:
        return observation[:1]


gymnasium.register("Toy-v0", "tests.collecting.toy_env:ToyEnv", max_episode_steps=50)
