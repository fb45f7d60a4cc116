"""Measured references: whole episodes, records that say how, and measuring that goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from generalist.envs import get_task, is_document_task, list_tasks
from generalist.envs import measure as program
from generalist.envs.measure import Player, Trial, main, play, played
from generalist.envs.registry import (
    LEAST_EXPERT_EPISODES,
    LEAST_RANDOM_EPISODES,
    SCORES_PATH,
    Score,
)

CARTPOLE = "gym/CartPole-v1"
ACTING = [task for task in list_tasks() if not is_document_task(task.name)]


def scores(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def logged(path: Path) -> list[tuple[str, int]]:
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(record["who"], record["seed"]) for record in records]


@pytest.mark.parametrize("task", ACTING, ids=lambda task: task.name)
def test_random_play_is_measured_over_whole_episodes_in_every_registered_task(task) -> None:
    score = task.random_score
    assert score is not None and score.max_steps is None
    assert score.episodes >= LEAST_RANDOM_EPISODES and score.stderr is not None


def test_a_task_is_normalised_by_whole_episodes_or_says_why_not() -> None:
    for task in ACTING:
        if task.references is None:
            assert task.not_normalized
            continue
        random, expert = task.references
        assert random.max_steps is None and expert.max_steps is None
        assert random.episodes >= LEAST_RANDOM_EPISODES
        assert expert.episodes >= LEAST_EXPERT_EPISODES
        assert expert.mean > random.mean and task.normalized(expert.mean) == 1.0


def test_no_record_of_one_episode_claims_an_error() -> None:
    for entry in scores(SCORES_PATH).values():
        records = [entry.get("random"), entry.get("expert"), *entry.get("experts", {}).values()]
        for record in filter(None, records):
            assert (record["stderr"] is None) == (record["episodes"] == 1)
            assert Score.from_dict(record).to_dict() == record
            cut = "--max-steps" in record["command"]
            assert cut == (record.get("max_steps") is not None)


def test_measuring_writes_a_file_the_registry_can_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    arguments = [CARTPOLE, "--episodes", "3", "--seed", "5", "--out", str(path)]
    assert main(arguments) == 0
    table = scores(path)
    expert = Score.from_dict(table[CARTPOLE]["expert"])
    assert expert.mean == 500.0 and expert.episodes == 3 and expert.seeds == (5, 8)
    assert expert.expert == "lqr" and not expert.foresees
    assert expert.environment["max_steps"] == 500 and expert.environment["gymnasium"]
    assert Score.from_dict(expert.to_dict()) == expert
    assert main([*arguments, "--again"]) == 0  # and the same numbers once more
    assert scores(path) == table


def test_the_record_of_an_atari_game_says_how_it_was_played() -> None:
    facts = program.environment_facts("atari/Pong")
    assert facts["sticky"] == 0.25 and facts["max_steps"] == 27_000 and facts["ale-py"]


def test_one_episode_has_no_error(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    assert main([CARTPOLE, "--episodes", "1", "--out", str(path)]) == 0
    assert scores(path)[CARTPOLE]["random"]["stderr"] is None


def test_cut_episodes_go_into_the_log_alone(tmp_path: Path) -> None:
    path, log = tmp_path / "scores.json", tmp_path / "log.jsonl"
    arguments = [CARTPOLE, "--seed", "5", "--out", str(path), "--log", str(log)]
    planned = [*arguments, "--expert", "planner@40", "--max-steps", "30"]
    assert main([*planned, "--episodes", "2"]) == 0
    first = [json.loads(line) for line in log.read_text().splitlines()]
    assert logged(log) == [("random", 5), ("random", 6), ("planner@40", 5), ("planner@40", 6)]
    assert all(0 < each["steps"] <= 30 and each["score"] == each["steps"] for each in first)
    assert main([*planned, "--who", "expert", "--episodes", "3"]) == 0
    assert logged(log)[4:] == [("planner@40", 7)], "played again"
    assert not path.exists()


def test_other_experts_stand_beside_the_default_one(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    arguments = [CARTPOLE, "--who", "expert", "--episodes", "2", "--out", str(path)]
    assert main([*arguments, "--expert", "planner@40"]) == 0
    assert main(arguments) == 0
    entry = scores(path)[CARTPOLE]
    assert entry["expert"]["expert"] == "lqr" and entry["expert"]["mean"] == 500.0
    assert set(entry["experts"]) == {"planner@40"}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_was_measured_is_not_measured_again(tmp_path: Path, workers: str) -> None:
    path, log = tmp_path / "scores.json", tmp_path / "log.jsonl"
    arguments = [CARTPOLE, "gym/Pendulum-v1", "--who", "random", "--out", str(path)]
    arguments += ["--log", str(log), "--workers", workers]
    assert main([*arguments, "--episodes", "2"]) == 0
    log.unlink()
    assert main([*arguments, "--episodes", "2"]) == 0 and not log.exists()
    assert main([*arguments, "--episodes", "3"]) == 0
    assert sorted(logged(log)) == sorted(2 * [("random", 1_000_000 + i) for i in range(3)])
    assert scores(path)[CARTPOLE]["random"]["episodes"] == 3


def test_measuring_goes_on_after_kill_9(tmp_path: Path) -> None:
    path, log = tmp_path / "scores.json", tmp_path / "log.jsonl"
    command = [sys.executable, "-m", "generalist.envs.measure", CARTPOLE, "gym/Acrobot-v1"]
    command += ["--who", "random", "--episodes", "25", "--out", str(path), "--log", str(log)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) > 27):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = scores(path)
    assert set(before) == {CARTPOLE}  # written when it was done
    log.write_text(log.read_text() + '{"task": "gym/Acro')  # cut off in the middle of a line
    known = logged_whole(log)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = logged_whole(log)
    assert after[: len(known)] == known and len(after) == len(set(after)) == 50
    assert scores(path)[CARTPOLE] == before[CARTPOLE]
    assert scores(path)["gym/Acrobot-v1"]["random"]["episodes"] == 25


def logged_whole(path: Path) -> list[tuple[str, int]]:
    """Task and seed of the episodes of a log, without a line that was cut off."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        found.append((record["task"], record["seed"]))
    return found


def test_a_task_that_fails_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "brittle.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Brittle(CartPoleEnv):\n"
        "    def step(self, action):\n"
        "        raise RuntimeError('the motor is broken')\n"
        "gymnasium.register('Brittle-v0', entry_point=Brittle, max_episode_steps=9)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "scores.json"
    tasks = ["gym/brittle:Brittle-v0", CARTPOLE]
    arguments = [*tasks, "--who", "random", "--episodes", "2", "--out", str(path)]
    assert main(arguments) == 1
    assert set(scores(path)) == {CARTPOLE}
    assert "the motor is broken" in capsys.readouterr().err


def test_half_an_hour_of_frames_is_not_kept() -> None:
    """A game's score is the same with and without its frames, which fill 0.6 GB."""
    from generalist.envs import make
    from generalist.experts import random_episode

    record = play(Trial(Player("atari/Breakout", "random"), 7, 200))
    episode = random_episode(make("atari/Breakout"), "atari/Breakout", 7, max_steps=200)
    assert (record["score"], record["steps"]) == (episode.return_, episode.steps)
    env = program.WithoutSight(make("atari/Breakout"))
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation) and observation.nbytes == 1


def test_records_are_the_same_side_by_side(tmp_path: Path) -> None:
    trials = [Trial(Player(CARTPOLE, "random"), seed) for seed in range(4)]
    alone, together = (dict(played(trials, workers=workers)) for workers in (1, 2))
    keys = ("task", "who", "seed", "score", "steps")
    for trial in trials:
        assert [alone[trial][key] for key in keys] == [together[trial][key] for key in keys]
    assert np.std([alone[trial]["score"] for trial in trials]) > 0


def test_measuring_what_cannot_be_measured_is_wrong_use(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["text/pydoc"]) == 2
    assert main([CARTPOLE, "--episodes", "0"]) == 2
    assert main([CARTPOLE, "--max-steps", "0"]) == 2
    assert main([CARTPOLE, "--workers", "0"]) == 2
    assert main([CARTPOLE, "--expert", "planner@0"]) == 2
    assert main(["gym/CartPol"]) == 2
    assert CARTPOLE in capsys.readouterr().err
    assert get_task(CARTPOLE).random_score is not None
