"""Hyper-parameters that are known to train an expert, by algorithm and task.

After the published tables of RL Baselines3 Zoo (Raffin, 2020), without state-dependent exploration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from generalist.errors import UsageError

ALGORITHMS = ("ppo", "sac", "dqn")


@dataclass(frozen=True)
class Recipe:
    """How an expert is trained.

    steps: of all environments together. envs: side by side. settings: of the algorithm, by the
    names that stable-baselines3 gives them. decay: which of them sink linearly to 0 over the run.
    normalize: whether observations and rewards are brought to unit variance.
    network: hidden layers.
    """

    steps: int
    envs: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    decay: tuple[str, ...] = ()
    normalize: bool = False
    network: tuple[int, ...] = (64, 64)


# The second part of a key is a task, or "" for all others.
_RECIPES: dict[tuple[str, str], Recipe] = {
    ("ppo", ""): Recipe(
        1_000_000, 8, {"n_steps": 256, "batch_size": 256, "n_epochs": 4, "gae_lambda": 0.95},
        normalize=True,
    ),
    ("ppo", "gym/CartPole-v1"): Recipe(
        100_000, 8,
        {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20,
         "learning_rate": 1e-3, "clip_range": 0.2},
        decay=("learning_rate", "clip_range"),
    ),
    ("ppo", "gym/Acrobot-v1"): Recipe(
        1_000_000, 16, {"n_steps": 256, "gae_lambda": 0.94, "n_epochs": 4}, normalize=True
    ),
    ("ppo", "gym/LunarLander-v3"): Recipe(
        1_000_000, 16,
        {"n_steps": 1024, "batch_size": 64, "gae_lambda": 0.98, "gamma": 0.999, "n_epochs": 4,
         "ent_coef": 0.01},
    ),
    ("sac", ""): Recipe(
        1_000_000, settings={"learning_starts": 10_000}, network=(256, 256)
    ),
    ("sac", "gym/Pendulum-v1"): Recipe(
        20_000, settings={"learning_rate": 1e-3}, network=(256, 256)
    ),
    ("sac", "gym/BipedalWalker-v3"): Recipe(
        500_000,
        settings={"learning_rate": 7.3e-4, "buffer_size": 300_000, "gamma": 0.98, "tau": 0.02,
                  "train_freq": 64, "gradient_steps": 64, "learning_starts": 10_000},
        network=(400, 300),
    ),
    ("dqn", ""): Recipe(1_000_000, settings={"learning_rate": 1e-4}),
    ("dqn", "gym/CartPole-v1"): Recipe(
        50_000,
        settings={"learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000,
                  "learning_starts": 1000, "gamma": 0.99, "target_update_interval": 10,
                  "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16,
                  "exploration_final_eps": 0.04},
        network=(256, 256),
    ),
    ("dqn", "gym/LunarLander-v3"): Recipe(
        100_000,
        settings={"learning_rate": 6.3e-4, "batch_size": 128, "buffer_size": 50_000,
                  "learning_starts": 0, "gamma": 0.99, "target_update_interval": 250,
                  "train_freq": 4, "gradient_steps": -1, "exploration_fraction": 0.12,
                  "exploration_final_eps": 0.1},
        network=(256, 256),
    ),
}  # fmt: skip


def recipe_for(algorithm: str, task: str) -> Recipe:
    """The recipe of the task itself, else the one for all others."""
    if algorithm not in ALGORITHMS:
        raise UsageError(f"There is no algorithm {algorithm!r}; there are {', '.join(ALGORITHMS)}.")
    return _RECIPES.get((algorithm, task), _RECIPES[algorithm, ""])
