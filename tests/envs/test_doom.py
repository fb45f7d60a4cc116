"""ViZDoom: frames, keys and mouse, seeds, rewards, ends, and the engine's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from generalist.envs import get_task, list_tasks, make
from generalist.errors import UsageError


def play(env: Any, seed: int, steps: int = 20) -> tuple[np.ndarray, list[float]]:
    """Frames and rewards of seeded random play."""
    env.action_space.seed(0)
    frames, rewards = [env.reset(seed=seed)[0]], []
    for _ in range(steps):
        frame, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        frames.append(frame)
        rewards.append(reward)
        if terminated or truncated:
            break
    return np.stack(frames), rewards


def test_every_scenario_starts_and_shows_frames() -> None:
    for task in list_tasks("doom"):
        env = task.make()
        frames, _ = play(env, 0, steps=3)
        assert task.frames and env.observation_space.contains(frames[-1])
        assert frames[-1].std() > 5
        env.close()


def test_a_seed_gives_one_game_in_a_new_and_in_a_used_engine() -> None:
    env, fresh = make("doom/defend_the_line"), make("doom/defend_the_line")
    first, other, again, anew = play(env, 1), play(env, 2), play(env, 1), play(fresh, 1)
    assert np.array_equal(first[0], again[0]) and first[1] == again[1]
    assert np.array_equal(first[0], anew[0])
    assert not np.array_equal(first[0], other[0])
    env.close()
    fresh.close()


def test_a_step_is_four_tics_and_rewards_are_the_scenarios_own() -> None:
    env = make("doom/basic")
    env.reset(seed=0)
    start = env.game.get_episode_time()
    nothing = np.zeros(3, np.int8)
    rewards = [env.step(nothing)[1] for _ in range(10)]
    assert env.game.get_episode_time() == start + 40
    assert rewards == [-4.0] * 10  # the scenario takes one a tic
    env.close()


def test_time_truncates_and_death_terminates() -> None:
    task, env = get_task("doom/basic"), make("doom/basic")
    env.reset(seed=0)
    ends = [env.step(np.zeros(3, np.int8))[2:4] for _ in range(task.max_steps)]
    assert task.max_steps == 75 and ends == [(False, False)] * 74 + [(False, True)]
    env.close()
    env = make("doom/health_gathering")
    env.reset(seed=0)
    over, reward = False, 0.0
    while not over:
        _, reward, over, truncated, _ = env.step(np.zeros(3, np.int8))
        assert not truncated
    assert reward < -90  # what death costs
    env.close()


def test_the_mouse_turns_by_degrees() -> None:
    env = make("doom/defend_the_center", mouse=True)
    assert env.keys == ("ATTACK",) and env.mouse == ("TURN_LEFT_RIGHT_DELTA",)
    assert env.action_space["keys"] == spaces.MultiBinary(1)
    env.reset(seed=0)
    before = env.variable("ANGLE")
    action = {"keys": np.zeros(1, np.int8), "mouse": np.array([30.0], np.float32)}
    env.step(action)
    turned = (before - env.variable("ANGLE")) % 360
    assert turned == pytest.approx(30.0, abs=0.1)
    env.close()


def test_deathmatch_has_keys_and_a_mouse_of_its_own() -> None:
    space = make("doom/deathmatch").action_space
    assert space["keys"].n == 17 and space["mouse"].shape == (3,)


def test_wrong_use_is_said_in_words() -> None:
    env = make("doom/basic")
    env.reset(seed=0)
    with pytest.raises(UsageError, match="MultiBinary"):
        env.step(2)
    with pytest.raises(UsageError, match="no turning"):
        make("doom/basic", mouse=True)
    with pytest.raises(UsageError, match="frame_skip"):
        make("doom/basic", frame_skip=0)
    with pytest.raises(UsageError, match="doom/take_cover"):
        get_task("doom/takecover")
    env.close()


def test_ctrl_c_is_python_s_alone_and_nothing_stays_behind(tmp_path: Path) -> None:
    """A terminal sends it to the engine too, which must not die of it before we know."""
    program = (
        "from generalist.envs import make\n"
        "env = make('doom/basic')\n"
        "env.reset(seed=0)\n"  # imports what it needs, of which an interrupt leaves half
        "try:\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        env.reset(seed=0)\n"
        "        for _ in range(70):\n"
        "            env.step(env.action_space.sample() * 0)\n"
        "except KeyboardInterrupt:\n"
        "    env.reset()\n"  # the engine is still there
        "    print('interrupted', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert said == "interrupted\n" and process.returncode == 0
    assert list(tmp_path.iterdir()) == []
