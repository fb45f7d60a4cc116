"""Who speaks about pictures: one says what the simulator's state says, one never looks."""

from __future__ import annotations

from typing import Any

import gymnasium


class Truth:
    """Says what is true of the picture, from the simulator's state."""

    name = "truth"

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Nothing is kept from one picture to the next."""

    def label(self, observation: Any, env: gymnasium.Env) -> str:
        """The text that is right."""
        base: Any = env.unwrapped
        return base.truth


class MostFrequent:
    """Says what is right most often of statements of the same form, whatever the picture."""

    name = "frequent"

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Nothing is kept from one picture to the next."""

    def label(self, observation: Any, env: gymnasium.Env) -> str:
        """The text that is right most often."""
        base: Any = env.unwrapped
        return base.frequent[base.statement.form]
