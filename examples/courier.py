"""An environment and an expert of your own, as generalist finds them: nothing here imports it.

The environment is any Gymnasium environment that registers an id; its task name is
`gym/courier:Courier-v0` (module, colon, id). The expert is any class with `reset` and `label`,
named `courier:CourierExpert`. Run with this folder on PYTHONPATH.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STEP = 0.1  # distance a full action moves the courier
NEAR = 0.08  # distance at which a parcel is delivered


class Courier(gymnasium.Env):
    """Carry parcels on a square: go to the address you are given, then to the next.

    Observation: a dict of `place` and `address`, each (2,) float32 in [-1, 1].
    Action: (2,) float32 in [-1, 1], the direction to move. Reward: 1 for each delivery.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        corner = np.ones(2, np.float32)
        self.observation_space = spaces.Dict(
            {"place": spaces.Box(-corner, corner), "address": spaces.Box(-corner, corner)}
        )
        self.action_space = spaces.Box(-corner, corner)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.place = self._somewhere()
        self.address = self._somewhere()
        return self._observation(), {}

    def step(self, action: np.ndarray):
        self.place = np.clip(self.place + STEP * np.clip(action, -1, 1), -1, 1).astype(np.float32)
        delivered = bool(np.linalg.norm(self.address - self.place) < NEAR)
        if delivered:
            self.address = self._somewhere()
        return self._observation(), float(delivered), False, False, {}

    def render(self) -> np.ndarray:
        """(128, 128, 3) uint8: the courier in blue, the address in red."""
        image = np.full((128, 128, 3), 255, np.uint8)
        for (x, y), colour in ((self.address, (200, 40, 40)), (self.place, (40, 80, 200))):
            column, row = int(62 + 58 * x), int(62 - 58 * y)
            image[row : row + 5, column : column + 5] = colour
        return image

    def _somewhere(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def _observation(self) -> dict[str, np.ndarray]:
        return {"place": self.place.copy(), "address": self.address.copy()}


class SeenCourier(Courier):
    """The same courier, seen as a picture of 128x128 pixels."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(0, 255, (128, 128, 3), np.uint8)

    def _observation(self) -> np.ndarray:
        return self.render()


class CourierExpert:
    """Walks straight to the address, and slows down in front of it."""

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        pass

    def label(self, observation: dict[str, np.ndarray], env: gymnasium.Env) -> np.ndarray:
        way = (observation["address"] - observation["place"]) / STEP
        return (way / max(1.0, float(np.abs(way).max()))).astype(np.float32)


class SeenCourierExpert(CourierExpert):
    """Looks at the simulator, where the agent has the picture."""

    def label(self, observation: np.ndarray, env: gymnasium.Env) -> np.ndarray:
        courier = env.unwrapped
        return super().label({"place": courier.place, "address": courier.address}, env)


gymnasium.register("Courier-v0", entry_point=Courier, max_episode_steps=100)
gymnasium.register("SeenCourier-v0", entry_point=SeenCourier, max_episode_steps=100)
