"""Trained experts: what is exported acts as what was trained, and needs no pickle."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import yaml

from generalist.cli.main import main
from generalist.envs import get_task, make
from generalist.errors import GeneralistError, UsageError
from generalist.experts import RandomPolicy, collect_episode, get_expert, learning
from generalist.experts.recipes import ALGORITHMS, recipe_for
from generalist.experts.trained import CARD_FILE, WEIGHTS_FILE, TrainedExpert, is_trained


def hand_made(folder: Path, task: str = "gym/CartPole-v1") -> Path:
    """An expert of one layer that pushes towards where the pole falls."""
    card = {"format": 1, "task": task, "algorithm": "ppo", "layers": 1, "activation": "tanh",
            "output": "argmax"}  # fmt: skip
    weight = np.zeros((2, 4), np.float32)
    weight[1] = [0.0, 0.1, 1.0, 1.0]
    TrainedExpert(card, {"weight.0": weight, "bias.0": np.zeros(2, np.float32)}).save(folder)
    return folder


def trained(algorithm: str, task: str, normalize: bool = False):
    """A model of stable-baselines3 after a few steps, and the expert exported from it."""
    from generalist.experts.recipes import Recipe

    settings = {"n_steps": 32, "batch_size": 32} if algorithm == "ppo" else {"learning_starts": 20}
    recipe = Recipe(0, 1, settings, normalize=normalize, network=(16, 16))
    model = learning._trained(task, algorithm, recipe, steps=64, seed=0, progress=False)
    card = {"format": 1, "task": task, "algorithm": algorithm}
    return model, learning._exported(model, algorithm, card)


@pytest.mark.parametrize(
    ("algorithm", "task", "normalize"),
    [
        ("ppo", "gym/CartPole-v1", False),
        ("ppo", "gym/Pendulum-v1", True),
        ("sac", "dmc/cartpole-balance", False),  # a Dict of observations
        ("dqn", "gym/CartPole-v1", False),
    ],
)
def test_the_exported_network_acts_as_the_trained_one(
    tmp_path: Path, algorithm: str, task: str, normalize: bool
) -> None:
    model, expert = trained(algorithm, task, normalize)
    expert.save(tmp_path / "expert")
    again = get_expert(task, str(tmp_path / "expert"))
    env = make(task)
    flat = gymnasium.wrappers.FlattenObservation(make(task))
    normalizer = model.get_vec_normalize_env()
    env.action_space.seed(0)
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        seen, _ = flat.reset(seed=seed)
        for _ in range(10):
            if normalizer is not None:
                seen = normalizer.normalize_obs(seen)
            wanted, _ = model.predict(seen, deterministic=True)
            np.testing.assert_allclose(again.label(observation, env), wanted, atol=1e-5)
            action = env.action_space.sample()
            observation, *_ = env.step(action)
            seen, *_ = flat.step(action)


def test_an_expert_in_a_folder_demonstrates(tmp_path: Path) -> None:
    """By its folder in a spec or on the command line, for its own task only."""
    folder = hand_made(tmp_path / "expert")
    assert is_trained(str(folder)) and not is_trained(str(tmp_path))
    episode = collect_episode(
        make("gym/CartPole-v1"), "gym/CartPole-v1", get_expert("gym/CartPole-v1", str(folder)), 3
    )
    assert episode.return_ > 100 and episode.info["expert"] == "ppo"
    with pytest.raises(UsageError, match="is of gym/CartPole-v1, not of gym/Acrobot-v1"):
        get_expert("gym/Acrobot-v1", str(folder))
    spec = tmp_path / "spec.yaml"
    tasks = [{"task": "gym/CartPole-v1", "episodes": 2}, {"task": "gym/Pendulum-v1", "episodes": 1}]
    spec.write_text(yaml.safe_dump({"tasks": tasks}))
    out = tmp_path / "data"
    command = ["collect", str(spec), "--out", str(out), "--workers", "0"]
    assert main([*command, "--expert", str(folder)]) == 0
    from generalist.shards.reader import TaskData

    data = TaskData(out / "gym/CartPole-v1")
    assert {record["expert"] for record in data.records} == {"ppo"}
    assert data.header.collection["expert"] == str(folder)
    other = hand_made(tmp_path / "other", "gym/Acrobot-v1")
    assert main([*command, "--expert", str(other)]) == 2


def test_damaged_folders_are_said(tmp_path: Path) -> None:
    folder = hand_made(tmp_path / "expert")
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[:20])
    with pytest.raises(GeneralistError, match="does not hold a trained expert"):
        get_expert("gym/CartPole-v1", str(folder))
    (folder / WEIGHTS_FILE).write_bytes(content)
    (folder / CARD_FILE).write_text("{}")
    with pytest.raises(GeneralistError, match="does not hold a trained expert"):
        get_expert("gym/CartPole-v1", str(folder))


def test_what_cannot_be_trained_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert main(["expert", "train", "atari/Pong", *out]) == 2
    assert "frames" in capsys.readouterr().err
    assert main(["expert", "train", "gym/CartPole-v1", "--algorithm", "sac", *out]) == 2
    assert "sac takes bounded Box actions" in capsys.readouterr().err
    assert main(["expert", "train", "gym/CartPole-v1", "--algorithm", "a2c", *out]) == 2
    assert "there are ppo, sac, dqn" in capsys.readouterr().err
    folder = hand_made(tmp_path / "there")
    assert main(["expert", "train", "gym/CartPole-v1", "--out", str(folder)]) == 2
    assert "already holds" in capsys.readouterr().err


@pytest.mark.parametrize("episodes", [1, 3])
def test_success_is_what_the_environment_says(episodes: int) -> None:
    """Random play in Meta-World earns rewards at every step, and reaches nothing."""
    task = "metaworld/reach"
    env = make(task, max_steps=5)
    chance = RandomPolicy(env.action_space)
    found = learning._measured(
        env, task, chance, episodes=episodes, score_of=get_task(task).score_of
    )
    assert found["mean"] == 0.0 and found["stderr"] == (None if episodes == 1 else 0.0)


def test_an_interrupted_training_says_that_it_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "_trained", interrupted)
    out = tmp_path / "expert"
    assert main(["expert", "train", "gym/CartPole-v1", "--out", str(out)]) == 130
    assert "begins anew" in capsys.readouterr().err and not out.exists()


def test_every_algorithm_has_a_recipe_for_any_task() -> None:
    for algorithm in ALGORITHMS:
        assert recipe_for(algorithm, "gym/Never-v0").steps > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ppo_solves_cartpole_and_demonstrates_it(tmp_path: Path) -> None:
    """Train, measure, and collect with it: 500 is the maximum."""
    folder = tmp_path / "expert"
    assert main(["expert", "train", "gym/CartPole-v1", "--out", str(folder)]) == 0
    card = json.loads((folder / CARD_FILE).read_text())
    assert card["score"]["mean"] > 475 > 100 > card["random"]["mean"]
    spec = tmp_path / "spec.yaml"
    task = {"task": "gym/CartPole-v1", "episodes": 5, "noise": 0.0, "expert": str(folder)}
    spec.write_text(yaml.safe_dump({"tasks": [task]}))
    out = tmp_path / "data"
    assert main(["collect", str(spec), "--out", str(out), "--workers", "0"]) == 0
    from generalist.shards.reader import TaskData

    assert np.mean([r["return"] for r in TaskData(out / "gym/CartPole-v1").records]) > 475
