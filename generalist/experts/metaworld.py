"""Meta-World's scripted policies: each a function of what is seen now, so it labels any state."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np

from generalist.envs.metaworld import VERSION


class MetaWorldScripted:
    """The policy that the package itself has for the task, its actions clipped to [-1, 1]."""

    name = "scripted"

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Choose the policy of the task."""
        from metaworld.policies import ENV_POLICY_MAP

        policy: Any = ENV_POLICY_MAP[env.unwrapped.name + VERSION]
        self._policy = policy()

    def label(self, observation: Any, env: gymnasium.Env) -> np.ndarray:
        """(4,) float32."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they warn of every action that has to be clipped
            action = self._policy.get_action(env.unwrapped.vector)  # a copy: some write into it
        return np.clip(action, -1.0, 1.0).astype(np.float32)
