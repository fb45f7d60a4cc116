"""Atari games: frames, seeds, stickiness, rewards, and that what matters can still be seen."""

from __future__ import annotations

import numpy as np
import pytest

from generalist.envs import get_task, make
from generalist.envs.atari import AtariEnv, shrink
from generalist.errors import UsageError


def play(env: AtariEnv, seed: int, steps: int = 60) -> tuple[np.ndarray, list[float]]:
    """All frames and rewards of seeded random play."""
    rng = np.random.default_rng(0)
    frames = [env.reset(seed=seed)[0]]
    rewards = []
    for _ in range(steps):
        frame, reward, over, truncated, _ = env.step(int(rng.integers(env.action_space.n)))
        frames.append(frame)
        rewards.append(reward)
        if over or truncated:
            break
    return np.stack(frames), rewards


@pytest.mark.parametrize("name", ["atari/Pong", "atari/Freeway", "atari/MsPacman"])
def test_frames_and_actions_lie_in_their_spaces(name: str) -> None:
    env = make(name)
    frame, info = env.reset(seed=0)
    assert env.observation_space.contains(frame) and frame.shape == (84, 84, 3)
    assert frame.std() > 0 and "lives" in info
    assert get_task(name).frames and get_task(name).max_steps == 27_000
    frame, reward, *_ = env.step(env.action_space.sample())
    assert env.observation_space.contains(frame) and isinstance(reward, float)


def test_the_action_set_is_the_games_own() -> None:
    assert make("atari/Freeway").unwrapped.action_names == ("NOOP", "UP", "DOWN")
    with pytest.raises(UsageError, match="actions 0 to 2"):
        env = make("atari/Freeway")
        env.reset(seed=0)
        env.step(3)


def test_a_seed_gives_one_game_and_another_seed_another() -> None:
    env = make("atari/Freeway")
    first, again, other = play(env, 1), play(env, 1), play(env, 2)
    assert np.array_equal(first[0], again[0]) and first[1] == again[1]
    assert not np.array_equal(first[0], other[0])
    assert np.array_equal(first[0], play(make("atari/Freeway"), 1)[0])


def test_resets_without_a_seed_go_on_to_new_games() -> None:
    env = make("atari/Freeway")
    frames = []
    env.reset(seed=1)
    for _ in range(2):
        env.reset()
        frames.append(np.stack([env.step(step % 3)[0] for step in range(60)]))
    assert not np.array_equal(frames[0], frames[1])


def test_without_stickiness_the_game_is_deterministic() -> None:
    env = make("atari/Freeway", sticky=0.0)
    assert np.array_equal(play(env, 1)[0], play(env, 2)[0])
    with pytest.raises(UsageError, match="sticky"):
        make("atari/Pong", sticky=1.0)


def test_a_step_is_four_frames_and_reward_is_the_change_of_score() -> None:
    env = make("atari/Pong", sticky=0.0)
    env.reset(seed=0)
    start = env.ale.getEpisodeFrameNumber()
    total = 0.0
    for step in range(1, 400):
        _, reward, over, _, _ = env.step(0)
        total += reward
        assert env.ale.getEpisodeFrameNumber() - start == 4 * step
        assert not over
    # A paddle that stands still loses points, each worth exactly one.
    assert total < -2 and total == round(total)


def test_the_limit_truncates_and_does_not_terminate() -> None:
    env = make("atari/Pong", max_steps=5)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]


def test_what_is_seen_is_the_maximum_of_the_last_two_frames() -> None:
    env = make("atari/Pong", sticky=0.0)
    raw = make("atari/Pong", sticky=0.0)
    env.reset(seed=0)
    raw.reset(seed=0)
    for _ in range(30):
        seen = env.step(2)[0]
        screens = []
        for _ in range(4):
            raw.ale.act(raw._actions[2])
            screens.append(raw.ale.getScreenRGB())
        assert np.array_equal(seen, shrink(np.maximum(screens[2], screens[3])))


@pytest.mark.parametrize(
    # Where the memory holds the ball, and what to add to get the screen's coordinates.
    ("name", "ram_x", "ram_y", "to_x", "to_y"),
    [("Pong", 49, 54, -48, -12), ("Breakout", 99, 101, -48, 11)],
)
def test_the_ball_survives_the_resize(
    name: str, ram_x: int, ram_y: int, to_x: int, to_y: int
) -> None:
    """Wherever the ball flies in the open, the small frame shows it, 40 of 255 or more."""
    env = make(f"atari/{name}", sticky=0.0)
    env.reset(seed=0)
    frames, balls = [], []
    for step in range(120):
        frames.append(env.step(1 if step < 4 else 0)[0].astype(int))
        ram = env.ram()
        balls.append((int(ram[ram_x]) + to_x, int(ram[ram_y]) + to_y))
    empty = np.median(frames, axis=0)
    seen = 0
    for frame, (x, y) in zip(frames[4:], balls[4:], strict=True):
        in_the_open = 24 < x < 136 and (100 if name == "Breakout" else 40) < y < 185
        if not in_the_open:
            continue
        seen += 1
        column, row = round((x - 0.5) * 84 / 160), round((y - 0.5) * 84 / 210)
        near = np.s_[row - 2 : row + 3, column - 2 : column + 3]
        contrast = np.abs(frame[near] - empty[near]).max()
        assert contrast >= 40, f"the ball at {x, y} has a contrast of {contrast}"
    assert seen >= 8


def test_shrinking_averages_areas() -> None:
    checkerboard = np.indices((168, 168)).sum(axis=0) % 2 * 255
    small = shrink(np.repeat(checkerboard[..., None], 3, axis=2).astype(np.uint8))
    assert small.shape == (84, 84, 3) and np.ptp(small) == 0 and abs(int(small[0, 0, 0]) - 128) <= 1


def test_rendering_is_the_full_screen() -> None:
    env = make("atari/Pong", render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (210, 160, 3)
    assert make("atari/Pong").render() is None
