"""BabyAI levels: spaces, instructions, seeds, rewards."""

from __future__ import annotations

import numpy as np
import pytest

from generalist.envs import get_task, list_tasks, make
from generalist.envs.babyai import CELL_HIGH, names


@pytest.mark.parametrize("name", ["babyai/GoToLocal", "babyai/BossLevel", "babyai/UnlockPickup"])
def test_observations_lie_in_their_space(name: str) -> None:
    env = make(name)
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        assert isinstance(info["instruction"], str) and info["instruction"]
        for _ in range(30):
            assert env.observation_space.contains(observation)
            observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                break


def test_a_cell_fits_one_token() -> None:
    image = make("babyai/GoToLocal").observation_space["image"]
    assert image.shape == (7, 7, 3) and image.low.max() == 0
    assert (image.high == np.array(CELL_HIGH)).all()
    assert np.prod(np.array(CELL_HIGH) + 1) <= 1024


def test_a_seed_gives_one_mission_and_others_differ() -> None:
    env = make("babyai/GoToLocal")
    missions = []
    for seed in (0, 0, 1, 2, 3):
        observation, info = env.reset(seed=seed)
        missions.append((info["instruction"], observation["image"].tobytes()))
    assert missions[0] == missions[1]
    assert len(set(missions)) == 4


def test_success_is_a_positive_return() -> None:
    task = get_task("babyai/GoToLocal")
    assert task.metric == "success" and task.max_steps == 64
    assert task.score_of(0.3, None) == 1.0 and task.score_of(0.0, None) == 0.0


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    env = make("babyai/PutNextLocal")
    for seed in range(20):
        env.reset(seed=seed)
    assert capfd.readouterr().out == ""


def test_the_executed_action_is_kept_for_the_bot() -> None:
    env = make("babyai/GoToLocal")
    env.reset(seed=0)
    assert env.get_wrapper_attr("last_action") is None
    env.step(np.int64(1))
    assert env.get_wrapper_attr("last_action") == 1
    env.reset(seed=0)
    assert env.get_wrapper_attr("last_action") is None


def test_the_levels_we_vouch_for_are_all_but_those_the_bot_fails_in() -> None:
    vouched = {task.name: task for task in list_tasks("babyai")}
    missing = {f"babyai/{name}" for name in names()} - set(vouched)
    assert missing == {
        "babyai/KeyInBox",
        "babyai/OpenDoorsOrderN2Debug",
        "babyai/OpenDoorsOrderN4Debug",
    }
    assert len(vouched) >= 90 and "babyai/GoToObjS6" in vouched
    for task in vouched.values():
        assert task.description and "\n" not in task.description and task.max_steps > 0
    words = vouched["babyai/GoToLocalS6N3"].description
    assert words.endswith("in one room with distractors (room_size 6, num_dists 3)")
