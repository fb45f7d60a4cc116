"""How fast and how well games are learned from rewards, beside stable-baselines3's PPO.

    python -m benchmarks.reinforcement --seconds 60
    python -m benchmarks.reinforcement --seconds 60 --learn 600000

One network of ours plays five games of MinAtar at once, by recipes/reinforce/minatar.yaml.
stable-baselines3 has a network for each game, of as many multiplications a state (an MLP over the
cells, of two layers for policy and value each), with as many environments, steps of an unroll,
passes and steps of a minibatch as ours has for a game. Speed is steps of environments a second, of
the whole loop. With --learn, PPO is trained for so many steps of each game, and the mean return of
its last 100 episodes is shown, for the table beside a run of ours.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.measure import print_table, screen, write_json
from generalist.envs import make
from generalist.modeling.build import count_parameters
from generalist.training.loop import build_trainer
from generalist.training.recipe import Recipe, load_recipe
from generalist.training.setup import opened
from generalist.training.strategies.launch import (
    StopSignal,
    start_accelerator,
    torch_settings_kept,
)

RECIPE = "reinforce/minatar"
GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")


@dataclass
class Speed:
    """Steps of environments a second, of the whole loop."""

    subject: str
    games: int
    steps_per_second: float
    multiplications_per_state: int


@dataclass
class Learned:
    """What PPO earns in one game at the end of its training."""

    game: str
    steps: int
    minutes: float
    mean_return: float
    episodes: int


def our_speed(seconds: float) -> Speed:
    """Train by the recipe for a while, on all cores."""
    folder = Path(tempfile.mkdtemp(prefix="generalist-benchmark-"))
    try:
        recipe = load_recipe(
            RECIPE,
            [
                f"schedule.minutes={seconds / 60}",
                f"output_dir={folder}",
                "trackers=[]",
                "log_every=8",
            ],
        )
        with torch_settings_kept():
            accelerator = start_accelerator(recipe)
            data = opened(recipe)
            trainer = build_trainer(recipe, data, accelerator)
            began = time.perf_counter()
            trainer.run(StopSignal())
            spent = time.perf_counter() - began
            row = trainer.source.row(spent)
            parameters = count_parameters(trainer.objective.model)["body"]
            trainer.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    mixing = 100 * recipe.model.embedders.width * recipe.model.hidden_size
    return Speed(
        "generalist, one network for all",
        len(GAMES),
        row["environment_steps"] / spent,
        parameters + mixing,
    )


def flat(game: str) -> gymnasium.Env:
    """A game whose cells are one vector of numbers."""
    env = make(f"minatar/{game}")
    space = gymnasium.spaces.Box(0, 1, (int(np.prod(env.observation_space.shape)),), np.float32)
    return Monitor(
        gymnasium.wrappers.TransformObservation(
            env, lambda seen: seen.reshape(-1).astype(np.float32), space
        )
    )


def width_for(multiplications: int, inputs: int) -> int:
    """h with 2 (inputs h + h^2) multiplications: two layers for the policy, two for the value."""
    return round((-inputs + (inputs**2 + 2 * multiplications) ** 0.5) / 2)


def ppo(game: str, recipe: Recipe, multiplications: int) -> PPO:
    """stable-baselines3's PPO with the settings of the recipe, for one game."""
    wanted = recipe.reinforcement
    assert wanted is not None
    count = wanted.tasks[f"minatar/{game}"].environments
    envs = DummyVecEnv([lambda: flat(game)] * count)
    width = width_for(multiplications, envs.observation_space.shape[0])
    return PPO(
        "MlpPolicy",
        envs,
        learning_rate=recipe.optimizer.lr,
        n_steps=wanted.unroll,
        batch_size=count * wanted.unroll // wanted.minibatches,
        n_epochs=wanted.passes,
        gamma=wanted.discount,
        gae_lambda=wanted.trace_decay,
        clip_range=wanted.clip,
        ent_coef=wanted.entropy,
        vf_coef=wanted.value,
        max_grad_norm=recipe.optimizer.max_grad_norm,
        policy_kwargs={"net_arch": [width, width]},
        device="cpu",
        seed=recipe.seed,
    )


def their_speed(seconds: float, multiplications: int) -> Speed:
    """PPO in one game, on all cores."""
    recipe = load_recipe(RECIPE)
    model = ppo("Breakout", recipe, multiplications)
    model.learn(2048)  # warm up
    began, before = time.perf_counter(), model.num_timesteps
    while time.perf_counter() - began < seconds:
        model.learn(4096, reset_num_timesteps=False)
    spent = time.perf_counter() - began
    rate = (model.num_timesteps - before) / spent
    return Speed("stable-baselines3, a network a game", 1, rate, multiplications)


def learn(game: str, steps: int, multiplications: int) -> Learned:
    """Train PPO in one game."""
    recipe = load_recipe(RECIPE)
    model = ppo(game, recipe, multiplications)
    began = time.perf_counter()
    model.learn(steps)
    returns = [episode["r"] for episode in model.ep_info_buffer]
    minutes = (time.perf_counter() - began) / 60
    return Learned(game, model.num_timesteps, minutes, float(np.mean(returns)), len(returns))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reinforcement",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=60, help="of each measurement of speed")
    parser.add_argument("--learn", type=int, default=0, help="steps of each game for PPO")
    parser.add_argument("--threads", type=int, default=2, help="of stable-baselines3")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    console = screen()
    ours = our_speed(options.seconds)
    torch.set_num_threads(options.threads)
    theirs = their_speed(options.seconds, ours.multiplications_per_state)
    columns = "subject", "games", "steps a second", "multiplications a state"
    speeds = [ours, theirs]
    print_table(console, "The whole loop", columns, (astuple(each) for each in speeds))
    learned = [
        learn(game, options.learn, ours.multiplications_per_state)
        for game in (GAMES if options.learn else ())
    ]
    if learned:
        print_table(
            console,
            "stable-baselines3's PPO, at its end",
            ("game", "steps", "minutes", "mean return", "of episodes"),
            (astuple(each) for each in learned),
        )
    result = {"speed": [asdict(x) for x in speeds], "learned": [asdict(x) for x in learned]}
    write_json(options.json, result)


if __name__ == "__main__":
    main()
