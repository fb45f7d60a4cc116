"""The smallest runs that learn from rewards in real environments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generalist.training.recipe import Recipe

CARTPOLE, PENDULUM, GOTO = "gym/CartPole-v1", "gym/Pendulum-v1", "babyai/GoToLocal"


@pytest.fixture
def make_run(shards: dict[str, Path], tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe of eight steps, which are two unrolls; keyword arguments replace whole sections.

    Those of `reinforcement` replace single keys of it.
    """

    def make(reinforcement: dict[str, Any] | None = None, **sections: object) -> Recipe:
        values: dict[str, object] = {
            "model": {
                "form": "compact",
                "hidden_size": 16,
                "intermediate_size": 32,
                "layers": 2,
                "heads": 2,
                "embedders": {"width": 4},
            },
            "data": {
                **shards, "window_tokens": 32, "rows_per_step": 4, "rows_per_forward": 1,
                "context_steps": {"default": 3, CARTPOLE: 1},
            },
            "reinforcement": {
                "tasks": {CARTPOLE: {"environments": 4}, PENDULUM: {"environments": 4}},
                "unroll": 6,
                "minibatches": 2,
                **(reinforcement or {}),
            },
            "schedule": {"steps": 8, "warmup_steps": 2},
            "checkpoint": {"every_steps": 3, "every_minutes": None, "keep": 4},
            "trackers": [],
            "cores": 1,
            "precision": "fp32",
            "log_every": 2,
            "output_dir": tmp_path / "run",
        }  # fmt: skip
        return Recipe.model_validate(values | sections)

    return make
