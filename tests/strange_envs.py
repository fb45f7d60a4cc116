"""Environments and experts that a user might really bring, each with one fault in mid-episode."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

AT = 3  # the step at which it happens


class Strange(gymnasium.Env):
    """Eight steps of zeros, and at the third of them what `fault` says."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    action_space = spaces.Discrete(2)
    observation_space: spaces.Space = spaces.Dict(
        {"arm": spaces.Box(-1.0, 1.0, (2,), np.float32), "door": spaces.Discrete(3)}
    )

    def __init__(self, fault: str = "", render_mode: str | None = None) -> None:
        self.fault, self.render_mode = fault, render_mode
        if fault == "make":
            raise RuntimeError("no simulator")

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        if self.fault == "reset":
            raise ValueError("the simulator\n  gave up")
        if self.fault == "reset outcome":
            return self._observation()
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        now = self.steps == AT
        if now and self.fault == "raise":
            raise ValueError("the simulator\n  gave up")
        reward: Any = 1.0
        if now and self.fault in REWARDS:
            reward = REWARDS[self.fault]
        over = self.steps == 8
        if now and self.fault == "outcome":
            return self._observation(), reward, over, {}
        info = {"hindsight": {"told": "wait"}} if now and self.fault == "hindsight" else {}
        return self._observation(), reward, over, False, info

    def _observation(self) -> dict[str, Any]:
        arm: Any = np.zeros(2, np.float32)
        door = np.int64(0)
        if self.steps == AT:
            arm = {"grows": np.zeros(3, np.float32), "nan": np.array([0.0, np.nan])}.get(
                self.fault, arm
            )
            door = np.int64(7) if self.fault == "outside" else door
            if self.fault == "missing":
                return {"arm": arm}
        return {"arm": arm, "door": door}

    def render(self) -> Any:
        return np.zeros((64, 64, 3), np.uint8)


REWARDS = {
    "reward (1,)": np.array([1.0]),
    "reward nan": float("nan"),
    "reward None": None,
    "reward word": "much",
}


class Failing:
    """An expert that gives up at the third step."""

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        pass

    def label(self, observation: Any, env: gymnasium.Env) -> int:
        if env.unwrapped.steps == AT:  # type: ignore[attr-defined]
            raise KeyError("no plan")
        return 0


class Patient(Failing):
    """An expert that does not."""

    def label(self, observation: Any, env: gymnasium.Env) -> int:
        return 0


class FailingAtReset(Failing):
    """An expert that never begins."""

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        raise OSError("no such model")


class Unmakeable(Failing):
    """An expert that cannot even be made."""

    def __init__(self) -> None:
        raise RuntimeError("no licence")


gymnasium.register("Strange-v0", entry_point=Strange)
