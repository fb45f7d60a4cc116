"""What a checkpoint was trained in travels with it; what differs from that is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import generalist
from generalist.acting.agent import Agent
from generalist.acting.environment import difference_note, options_for
from generalist.acting.prompts import demonstrations
from generalist.acting.rollout import dagger_episodes, rollout
from generalist.cli.main import main
from generalist.errors import GeneralistError
from generalist.shards.spaces import space_to_json
from tests.decoding.models import tiny_agent

GOAL = "gym/tests.goal_env:Goal-v0"
MODEL = {"hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 2}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained, by the commands, on demonstrations with an option that changes no space."""
    folder = tmp_path_factory.mktemp("goal")
    task = {"task": GOAL, "episodes": 30, "expert": "tests.goal_env:Best", "options": {"goal": 2}}
    spec = folder / "spec.yaml"
    spec.write_text(yaml.safe_dump({"noise": 0, "tasks": [task]}))
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({
        "model": MODEL,
        "data": {"root": str(folder / "data"), "window_tokens": 128, "rows_per_step": 8,
                 "rows_per_forward": 8},
        "schedule": {"steps": 40, "warmup_steps": 2}, "optimizer": {"lr": 0.01},
        "precision": "fp32", "trackers": [], "output_dir": str(folder / "run"),
    }))  # fmt: skip
    assert main(["collect", str(spec), "--out", str(folder / "data"), "--workers", "0"]) == 0
    assert main(["train", str(recipe)]) == 0
    return folder / "run" / "checkpoint"


def rolled(checkpoint: Path, capsys: pytest.CaptureFixture, *options: str) -> tuple[dict, str]:
    """The JSON of `rollout`, and what it said on stderr."""
    file = checkpoint.parent / "result.json"
    capsys.readouterr()
    assert main(["rollout", "gym", GOAL.removeprefix("gym/"), "--checkpoint", str(checkpoint),
                 "--episodes", "3", "--json", str(file), *options]) == 0  # fmt: skip
    return json.loads(file.read_text()), capsys.readouterr().err


def test_rollout_makes_the_environment_that_was_trained_in(
    checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    result, said = rolled(checkpoint, capsys)
    assert result["returns"] == [8.0] * 3 and result["options"] == {"goal": 2}
    assert result["note"] is None and "Note" not in said
    result, said = rolled(checkpoint, capsys, "--option", "goal=0")
    assert result["returns"] == [0.0] * 3 and result["options"] == {"goal": 0}
    assert f"Note: {GOAL} differs from what" in said and "goal 0 instead of 2." in said
    result, said = rolled(checkpoint, capsys, "--option", "goal=2", "--option", "high=2")
    assert result["returns"] == [8.0] * 3 and "other bounds of observation" in said


def test_a_suite_makes_it_too(checkpoint: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"tasks": [GOAL], "episodes": 2, "prompted_episodes": 0}))
    out = tmp_path / "out"
    assert main(["evaluate", str(suite), "--checkpoint", str(checkpoint), "--out", str(out),
                 "--workers", "0"]) == 0  # fmt: skip
    (path,) = (out / "results").glob("*.json")
    assert json.loads(path.read_text())["returns"] == [8.0, 8.0]


def test_corrections_and_saved_checkpoints_keep_it(checkpoint: Path, tmp_path: Path) -> None:
    agent = Agent.from_pretrained(checkpoint)
    agent.save_pretrained(tmp_path / "saved")
    for each in (agent, Agent.from_pretrained(tmp_path / "saved"), agent.for_task(GOAL)):
        (episode,) = dagger_episodes(
            each, episodes=1, seed=3, expert="tests.goal_env:Best", progress=False
        )
        assert episode.return_ == 8.0 and (episode.labels == 2).all()


def test_the_spaces_are_compared(checkpoint: Path) -> None:
    agent = Agent.from_pretrained(checkpoint)
    with pytest.raises(GeneralistError) as caught:
        rollout(agent, episodes=1, progress=False, wide=True)
    assert "observation is a Box of shape (4,)" in str(caught.value)
    assert "trained with a Box of shape (3,)" in str(caught.value)
    assert "wide True instead of False" in str(caught.value)


OPTIONS: list[tuple[str, dict[str, Any], dict[str, Any], str | None]] = [
    ("atari/Pong", {}, {"sticky": 0.25}, None),
    ("atari/Pong", {"sticky": 0.0}, {}, None),
    ("atari/Pong", {}, {"sticky": 0.0}, "sticky 0.0 instead of 0.25"),
    ("atari/Pong", {"sticky": 0.0}, {"sticky": 0.25}, "sticky 0.25 instead of 0.0"),
    ("board/TicTacToe", {"opponent": "random"}, {}, None),
    ("board/TicTacToe", {}, {"opponent": "random"}, "opponent 'random' instead of 'mcts@9'"),
    ("gym/LunarLander-v3", {}, {"gravity": -5.0}, "gravity -5.0 instead of -10.0"),
]


@pytest.mark.parametrize(("task", "trained", "given", "said"), OPTIONS)
def test_options_that_change_no_space_are_said(
    task: str, trained: dict[str, Any], given: dict[str, Any], said: str | None
) -> None:
    env = generalist.make(task, **trained)
    spaces = {"observation": env.observation_space, "action": env.action_space}
    known = {"options": trained, "spaces": {k: space_to_json(v) for k, v in spaces.items()}}
    agent = tiny_agent("gym/CartPole-v1", environments={task: known})
    options = options_for(agent, task, given)
    assert options == {**trained, **given}
    note = difference_note(agent, task, options=options, env=generalist.make(task, **options))
    assert note is None if said is None else said in (note or "")


def test_demonstrations_are_of_the_environment_that_is_acted_in() -> None:
    task = "board/TicTacToe"
    sides = {"first": 0, "second": 1}
    for side, stones in sides.items():
        (episode,) = demonstrations(task, 1, options={"side": side, "opponent": "random"})
        assert int((episode.observations[0] > 0).sum()) == stones


def test_only_another_environment_loses_the_normalised_score() -> None:
    agent = tiny_agent("gym/CartPole-v1")
    for options in ({}, {"max_steps": 500}, {"sutton_barto_reward": False}):
        assert rollout(agent, episodes=1, progress=False, **options).normalized is not None
    changed = rollout(agent, episodes=1, progress=False, max_steps=9)
    assert changed.random is changed.expert is changed.normalized is None
