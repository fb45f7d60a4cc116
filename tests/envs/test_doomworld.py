"""Rooms in Doom's engine: maps written for each episode, missions that its objects judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from generalist.envs import list_tasks, make
from generalist.envs.controls import pressed
from generalist.envs.doom_map import room_text, write_wad
from generalist.experts import demonstrate, policy_named

TASKS = [task.name for task in list_tasks("doomworld")]


@pytest.mark.parametrize("task", TASKS)
def test_the_guide_does_what_is_asked_with_keys_and_mouse(task: str) -> None:
    env = make(task)
    guide = policy_named(task, None, [env])
    assert np.mean([demonstrate(guide, env, task, seed).success for seed in range(5)]) >= 0.8
    env.close()


def test_a_seed_draws_the_same_room_in_a_new_and_in_a_used_engine() -> None:
    used, fresh = make("doomworld/GoTo"), make("doomworld/GoTo")
    used.reset(seed=1)
    used.step(pressed("W"))
    frames = []
    for env in (used, fresh):
        observation, info = env.reset(seed=2)
        seen = [observation, *(env.step(pressed("W", yaw=10))[0] for _ in range(4))]
        frames.append((info["instruction"], np.stack(seen)))
        env.close()
    assert frames[0][0] == frames[1][0]
    assert np.array_equal(frames[0][1], frames[1][1])


def test_keys_and_mouse_mean_what_the_dictionary_says() -> None:
    env = make("doomworld/Gesture")
    env.reset(seed=0)
    scene = env.room.scene
    for _ in range(2):  # the engine takes a step to begin
        env.room.execute(set(), 0, 0)
    heading, pitch, place = scene.heading, scene.pitch, scene.place
    env.room.execute(set(), 20, 0)
    assert np.degrees(heading - scene.heading) == pytest.approx(20, abs=2)  # to the right
    env.room.execute(set(), 0, 10)
    assert scene.pitch - pitch == pytest.approx(10, abs=1)  # upwards
    ahead = np.array([np.cos(scene.heading), np.sin(scene.heading)])
    env.room.execute({"W"}, 0, 0)
    assert (scene.place - place) @ ahead > 0
    env.close()


def test_a_map_has_its_place_in_a_wad(tmp_path: Path) -> None:
    text = room_text((300, 300), [(46, 1, 2)], player=(9, 9, 0), wall="STONE2", floor="FLAT5_4")
    path = tmp_path / "room.wad"
    write_wad(path, text)
    size = path.stat().st_size
    write_wad(path, text.replace("type = 46", "type = 45"))
    assert path.stat().st_size == size and b"type = 45" in path.read_bytes()
    with pytest.raises(ValueError, match="at most"):
        write_wad(path, text * 40)
