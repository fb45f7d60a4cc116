"""An environment that tosses a coin after the bet, with the random numbers of its own seed.

Whoever bets without knowing them wins half of the bets.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

TASK, TASK_OF_NUMBERS = "gym/tests.coin:Coin-v0", "gym/tests.coin:CoinBox-v0"
BETS = 100  # of an episode


class Coin(gymnasium.Env):
    """Action 0 or 1: the bet. Reward 1 where the coin falls so, else 0."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._bets = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._bets += 1
        won = (self.np_random.random() >= 0.5) == self._heads(action)
        return np.zeros(3, np.float32), float(won), self._bets == BETS, False, {}

    def _heads(self, action: np.int64) -> bool:
        return bool(action)


class CoinBox(Coin):
    """The bet is the sign of a real number."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def _heads(self, action: np.ndarray) -> bool:
        return bool(action[0] >= 0)


gymnasium.register("Coin-v0", entry_point=Coin)
gymnasium.register("CoinBox-v0", entry_point=CoinBox)
