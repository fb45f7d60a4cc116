"""Train experts by reinforcement learning, with stable-baselines3."""

from __future__ import annotations

import datetime
import functools
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs import get_task, is_document_task, make
from generalist.envs.frames import has_frames
from generalist.errors import GeneralistError, MissingPackageError, UsageError
from generalist.experts.collect import demonstrate
from generalist.experts.policies import ExpertPolicy, RandomPolicy
from generalist.experts.recipes import Recipe, recipe_for
from generalist.experts.trained import TrainedExpert, is_trained
from generalist.seeds import EVALUATION_SEED
from generalist.streams import Stream, random_stream

_CLIP_NORMALIZED = 10.0


def train_expert(
    task: str,
    out: str | Path,
    *,
    algorithm: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    episodes: int = 20,
    progress: bool = True,
) -> TrainedExpert:
    """Train an expert of a task, measure it beside a random policy, and write it to `out`.

    Args:
        task: name of a task with a state observation.
        out: folder of the expert.
        algorithm: ppo, sac or dqn; None: ppo for Discrete actions, else sac.
        steps: environment steps, of all environments together; None: those of the recipe.
        seed: seed of the training.
        episodes: episodes of the measurement, with seeds that training has not seen.
        progress: show a bar on stderr.

    Returns:
        The expert; its card holds the scores.

    Raises:
        UsageError: `out` holds an expert already, the task shows frames or is text, or the
            algorithm does not fit the action space.
        MissingPackageError: stable-baselines3 is not installed.
    """
    if is_trained(str(out)):
        raise UsageError(f"{out} already holds a trained expert; choose another --out.")
    spec = get_task(task)
    if is_document_task(task):
        raise UsageError(f"{task} is text and has no actions; name an environment.")
    env = make(task)
    if has_frames(env.observation_space):
        raise UsageError(f"{task} shows frames; experts are trained from state only.")
    algorithm = algorithm or ("ppo" if isinstance(env.action_space, spaces.Discrete) else "sac")
    recipe = recipe_for(algorithm, task)
    _check_actions(task, algorithm, env.action_space)
    steps = steps or recipe.steps
    began = time.monotonic()
    model = _trained(task, algorithm, recipe, steps=steps, seed=seed, progress=progress)
    card = {
        "format": 1,
        "task": task,
        "algorithm": algorithm,
        "steps": steps,
        "seconds": round(time.monotonic() - began, 1),
        "seed": seed,
        "date": datetime.date.today().isoformat(),
        "settings": {"envs": recipe.envs, "network": list(recipe.network),
                     "normalize": recipe.normalize, **recipe.settings},
    }  # fmt: skip
    expert = _exported(model, algorithm, card)
    chance, demonstrator = RandomPolicy(env.action_space), ExpertPolicy([expert], [env])
    expert.card["random"] = _measured(env, task, chance, episodes=episodes, score_of=spec.score_of)
    expert.card["score"] = _measured(
        env, task, demonstrator, episodes=episodes, score_of=spec.score_of
    )
    env.close()
    expert.save(out)
    return expert


def _check_actions(task: str, algorithm: str, space: spaces.Space) -> None:
    discrete = isinstance(space, spaces.Discrete)
    bounded = isinstance(space, spaces.Box) and bool(space.is_bounded())
    fits = {"ppo": discrete or bounded, "sac": bounded, "dqn": discrete}
    if not fits[algorithm]:
        wanted = {"ppo": "Discrete or bounded Box", "sac": "bounded Box", "dqn": "Discrete"}
        raise UsageError(f"{algorithm} takes {wanted[algorithm]} actions, {task} has {space}.")


def _trained(
    task: str, algorithm: str, recipe: Recipe, *, steps: int, seed: int, progress: bool
) -> Any:
    """The trained model of stable-baselines3."""
    try:
        import stable_baselines3
    except ImportError as error:
        raise MissingPackageError("stable_baselines3", "Training an expert") from error
    import torch
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)  # such small networks are slower on several
    envs = make_vec_env(functools.partial(_flat, task), n_envs=recipe.envs, seed=seed)
    settings = dict(recipe.settings)
    for name in recipe.decay:
        settings[name] = functools.partial(_linear, settings[name])
    if recipe.normalize:
        gamma = settings.get("gamma", 0.99)
        envs = VecNormalize(envs, gamma=gamma, clip_obs=_CLIP_NORMALIZED)
    model = getattr(stable_baselines3, algorithm.upper())(
        "MlpPolicy", envs, seed=seed, device="cpu",
        policy_kwargs={"net_arch": list(recipe.network)}, **settings,
    )  # fmt: skip
    # stable-baselines3 seeds its random actions like the first environment; draw another seed.
    model.action_space.seed(int(random_stream(seed, Stream.EXPERT_TRAINING).integers(2**31)))
    model.learn(steps, callback=_bar(f"{task} {algorithm}", steps, progress))
    envs.close()
    return model


def _flat(task: str) -> gymnasium.Env:
    """The environment with its observation as one vector."""
    return gymnasium.wrappers.FlattenObservation(make(task))


def _linear(initial: float, remaining: float) -> float:
    return initial * remaining


def _bar(title: str, steps: int, show: bool) -> Any:
    """A callback that shows a progress bar with the mean return of the last 100 episodes."""
    from stable_baselines3.common.callbacks import BaseCallback
    from tqdm import tqdm

    class Bar(BaseCallback):
        def _on_training_start(self) -> None:
            self.bar = tqdm(total=steps, desc=title, unit="step", disable=not show)

        def _on_step(self) -> bool:
            self.bar.update(min(self.num_timesteps, steps) - self.bar.n)
            if returns := [info["r"] for info in self.model.ep_info_buffer or ()]:
                self.bar.set_postfix_str(f"return {np.mean(returns):.1f}", refresh=False)
            return True

        def _on_training_end(self) -> None:
            self.bar.close()

    return Bar()


def _exported(model: Any, algorithm: str, card: dict[str, Any]) -> TrainedExpert:
    """The network of a model that chooses actions, without the parts that only training needs."""
    import torch

    policy = model.policy
    if algorithm == "ppo":
        modules = [*policy.mlp_extractor.policy_net, policy.action_net]
        output = "argmax" if isinstance(model.action_space, spaces.Discrete) else "clip"
    elif algorithm == "sac":
        modules, output = [*policy.actor.latent_pi, policy.actor.mu], "tanh"
    else:
        modules, output = list(policy.q_net.q_net), "argmax"
    layers = [module for module in modules if isinstance(module, torch.nn.Linear)]
    kinds = {type(module).__name__.lower() for module in modules} - {"linear"}
    if len(kinds) != 1:
        raise GeneralistError(f"Layers of {', '.join(sorted(kinds))} cannot be exported together.")
    weights = {}
    for index, layer in enumerate(layers):
        weights[f"weight.{index}"] = layer.weight.detach().numpy().astype(np.float32).copy()
        weights[f"bias.{index}"] = layer.bias.detach().numpy().astype(np.float32).copy()
    card |= {"layers": len(layers), "activation": kinds.pop(), "output": output}
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        seen = normalizer.obs_rms
        weights["mean"] = seen.mean.astype(np.float32)
        weights["std"] = np.sqrt(seen.var + normalizer.epsilon).astype(np.float32)
        card["clip_observation"] = normalizer.clip_obs
    return TrainedExpert(card, weights)


def _measured(
    env: gymnasium.Env,
    task: str,
    who: ExpertPolicy | RandomPolicy,
    *,
    episodes: int,
    score_of: Callable[[float, bool | None], float],
) -> dict[str, Any]:
    """Mean score over unseen episodes, and its standard error (None for a single episode)."""
    played = (demonstrate(who, env, task, EVALUATION_SEED + i) for i in range(episodes))
    scores = [score_of(episode.return_, episode.success) for episode in played]
    spread = statistics.stdev(scores) if episodes > 1 else None
    return {"mean": round(statistics.fmean(scores), 3),
            "stderr": None if spread is None else round(spread / math.sqrt(episodes), 3),
            "episodes": episodes, "first_seed": EVALUATION_SEED}  # fmt: skip
