"""Every expert: labels any state, beats random play, and follows from what it is given."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest

from generalist.envs import Task, get_task, make
from generalist.episode import Episode, tree_leaves
from generalist.errors import UsageError
from generalist.experts import collect_episode, expert_names, get_expert, random_episode
from generalist.experts.freeway import FreewayCrossing

TASKS = [
    "gym/CartPole-v1",
    "gym/Pendulum-v1",
    "gym/MountainCarContinuous-v0",
    "gym/LunarLander-v3",
    "gym/Acrobot-v1",
    "gym/MountainCar-v0",
    "gym/LunarLanderContinuous-v3",
    "babyai/GoToLocal",
    "atari/Freeway",
    "atari/Pong",
    "atari/Breakout",
]
# Half a game is enough to tell an expert from chance.
STEPS = {"atari/Freeway": 300, "atari/Pong": 300, "atari/Breakout": 200}


def random_walk(env: gymnasium.Env, seed: int, steps: int) -> tuple[Any, bool]:
    """An observation that random actions led to, and whether the episode is over."""
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    for _ in range(steps):
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            return observation, True
    return observation, False


@pytest.mark.parametrize("name", TASKS)
def test_labels_exist_at_any_state_and_do_not_change_it(name: str) -> None:
    env, expert = make(name), get_expert(name)
    for seed, steps in enumerate((0, 1, 5, 12, 40)):
        observation, over = random_walk(env, seed, steps)
        if over:
            continue
        before = copy.deepcopy(observation)
        expert.reset(env, seed)  # it did not see how this state came about
        label = expert.label(observation, env)
        assert env.action_space.contains(label), label
        assert np.array_equal(label, expert.label(observation, env)), "asked twice"
        for (_, old), (_, new) in zip(tree_leaves(before), tree_leaves(observation), strict=True):
            assert np.array_equal(old, new)


def score(task: Task, episode: Episode) -> float:
    return task.score_of(episode.return_, episode.success)


@pytest.mark.parametrize("name", TASKS)
def test_experts_beat_random_play(name: str) -> None:
    task, env, steps = get_task(name), make(name), STEPS.get(name)
    seeds = range(2) if steps else range(6)
    expert = [
        score(task, collect_episode(env, name, get_expert(name), s, max_steps=steps)) for s in seeds
    ]
    chance = [score(task, random_episode(env, name, s, max_steps=steps)) for s in seeds]
    assert np.mean(expert) > np.mean(chance), (expert, chance)


@pytest.mark.parametrize(
    ("name", "expert", "steps"),
    [
        ("gym/LunarLander-v3", "steady", None),
        ("dmc/reacher-easy", "damped-least-squares", 100),
        ("atari/Freeway", "cautious", 300),
        ("atari/Pong", "steady", 300),
    ],
)
def test_experts_to_be_imitated_label_any_state_and_beat_random_play(
    name: str, expert: str, steps: int | None
) -> None:
    task, env, demonstrator = get_task(name), make(name), get_expert(name, expert)
    random_walk(env, 1, 20)
    observation, over = random_walk(env, 2, 12)
    assert not over and demonstrator.name == expert
    label = demonstrator.label(observation, env)
    assert env.action_space.contains(label)
    assert np.array_equal(label, demonstrator.label(observation, env)), "asked twice"
    played = [
        score(task, collect_episode(env, name, demonstrator, s, max_steps=steps)) for s in range(3)
    ]
    chance = [score(task, random_episode(env, name, s, max_steps=steps)) for s in range(3)]
    assert np.mean(played) > np.mean(chance), (played, chance)


def blurred_return(env: gymnasium.Env, act: Any, blur: np.ndarray, seed: int) -> float:
    """Return of a policy that sees every number under Gaussian noise of that size."""
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        seen = observation + blur * rng.standard_normal(observation.shape)
        observation, reward, terminated, truncated, _ = env.step(act(seen))
        total, over = total + float(reward), terminated or truncated
    return total


def test_the_steady_lander_still_lands_when_it_sees_badly() -> None:
    env = make("gym/LunarLander-v3")
    blur = np.array([0.1] * 6 + [0.0] * 2)  # it does feel the ground
    means = {
        name: np.mean(
            [
                blurred_return(env, get_expert("gym/LunarLander-v3", name).act, blur, seed)
                for seed in range(16)
            ]
        )
        for name in expert_names("gym/LunarLander-v3")
    }
    assert means["steady"] > 150 > means["heuristic"], means


def test_the_pendulums_expert_still_swings_up_when_it_sees_badly() -> None:
    env, expert = make("gym/Pendulum-v1"), get_expert("gym/Pendulum-v1")
    blur = np.array([0.1, 0.1, 0.4])
    returns = [blurred_return(env, expert.act, blur, seed) for seed in range(16)]
    assert np.mean(returns) > -250, returns


@pytest.mark.parametrize("name", ["gym/CartPole-v1", "gym/LunarLander-v3", "babyai/GoToLocal"])
def test_disturbed_episodes_keep_the_experts_own_labels(name: str) -> None:
    env, expert = make(name), get_expert(name)
    episode = collect_episode(env, name, expert, seed=3, noise=0.5, burst_steps=2.0)
    assert episode.labels is not None and episode.info["noise"] == 0.5
    assert len(episode.labels) == episode.steps
    assert (np.asarray(episode.labels) != np.asarray(episode.actions)).any()
    again = collect_episode(env, name, get_expert(name), seed=3, noise=0.5, burst_steps=2.0)
    assert np.array_equal(episode.actions, again.actions)
    assert np.array_equal(episode.labels, again.labels)
    if name.startswith("gym/"):
        for index in range(0, episode.steps, 7):
            label = expert.label(episode.observations[index], env)
            assert np.array_equal(label, episode.labels[index])
    else:
        assert episode.instruction and episode.instruction.startswith("go to")


def test_undisturbed_episodes_need_no_labels() -> None:
    env = make("gym/CartPole-v1")
    episode = collect_episode(env, "gym/CartPole-v1", get_expert("gym/CartPole-v1"), seed=0)
    assert episode.labels is None and episode.return_ == 500.0
    assert episode.truncated and not episode.terminated
    assert episode.info["seed"] == 0 and episode.info["expert"] == "lqr"


def test_max_steps_truncates() -> None:
    env = make("gym/CartPole-v1")
    expert = get_expert("gym/CartPole-v1")
    episode = collect_episode(env, "gym/CartPole-v1", expert, seed=0, max_steps=9)
    assert episode.steps == 9 and episode.truncated and not episode.terminated


@pytest.mark.parametrize("burst_steps", [1.0, 5.0])
def test_noise_is_the_share_of_disturbed_steps(burst_steps: float) -> None:
    name = "gym/MountainCarContinuous-v0"
    env, expert = make(name), get_expert(name)
    disturbed = []
    for seed in range(40):
        episode = collect_episode(env, name, expert, seed, noise=0.3, burst_steps=burst_steps)
        disturbed.extend((episode.actions != episode.labels).any(axis=1))
    changes = np.diff(np.asarray(disturbed, int)) == 1
    assert abs(np.mean(disturbed) - 0.3) < 0.05
    # A stretch of disturbed steps lasts burst_steps / (1 - noise) on average.
    assert np.sum(disturbed) / changes.sum() == pytest.approx(burst_steps / 0.7, rel=0.25)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_late_hand_executes_what_was_meant_before(noise: float) -> None:
    name = "gym/Pendulum-v1"
    env, expert = make(name), get_expert(name)
    episode = collect_episode(env, name, expert, 5, noise=noise, delay_steps=6)
    assert episode.info["delay_steps"] == 6 and episode.info["noise"] == noise
    meant = episode.labels[np.maximum(0, np.arange(episode.steps) - 6)]
    late = (episode.actions == meant).all(axis=1)
    assert late.all() if noise == 0 else 0.6 < late.mean() < 0.8
    assert episode.return_ < collect_episode(env, name, expert, 5).return_ - 300
    with pytest.raises(UsageError, match="delay_steps"):
        collect_episode(env, name, expert, 0, delay_steps=-1)


def test_wrong_noise_and_wrong_names_are_refused() -> None:
    name = "gym/CartPole-v1"
    env, expert = make(name), get_expert(name)
    with pytest.raises(UsageError, match="noise"):
        collect_episode(env, name, expert, 0, noise=1.5)
    with pytest.raises(UsageError, match="burst_steps"):
        collect_episode(env, name, expert, 0, noise=0.5, burst_steps=0.0)
    with pytest.raises(UsageError, match="lqr"):
        get_expert(name, "lqg")
    with pytest.raises(UsageError, match="package.module:Class"):
        get_expert("gym/Taxi-v4")
    with pytest.raises(UsageError, match="no_such"):
        get_expert(name, "no_such.module:Expert")


def test_ones_own_expert_is_named_by_its_class() -> None:
    expert = get_expert("gym/CartPole-v1", "generalist.experts.classic:CartPoleLQR")
    assert expert.label(np.zeros(4, np.float32), None) in (0, 1)
    assert expert_names("gym/CartPole-v1") == ("lqr", "planner")


@pytest.mark.parametrize("name", ["babyai/PickupLoc", "babyai/PutNextLocal", "babyai/GoTo"])
def test_the_bot_solves_missions_although_it_is_disturbed(name: str) -> None:
    env = make(name)
    returns = [
        collect_episode(env, name, get_expert(name), seed, noise=0.15).return_ for seed in range(8)
    ]
    assert np.mean(np.array(returns) > 0) >= 0.75


def test_the_bots_label_follows_from_what_was_seen_and_not_from_how() -> None:
    """Two ways to the same place, having seen the same, get the same label."""
    env = make("babyai/GoToLocal")
    labels = []
    for path in ([0, 1, 0], [0, 0, 1]):
        observation, _ = env.reset(seed=5)
        expert = get_expert("babyai/GoToLocal")
        expert.reset(env, 5)
        for action in path:
            expert.label(observation, env)
            observation, *_ = env.step(action)
        labels.append((observation["image"].tobytes(), int(expert.label(observation, env))))
    assert labels[0] == labels[1]


def test_the_chicken_waits_for_a_car_and_walks_on_an_empty_road() -> None:
    ram = np.zeros(128, np.uint8)
    ram[14] = 6
    ram[108:118] = 100  # all cars are past the crossing or far before it
    expert = FreewayCrossing()
    assert expert.act(ram) == 1
    ram[14] = 12 + 16 * 4 - 2  # before the fifth lane, whose car comes at a pixel a frame
    ram[112] = 38
    assert expert.act(ram) != 1


def test_the_bot_gives_up_where_its_plan_goes_in_circles() -> None:
    """After these disturbances a dropped key bars the way, and minigrid's bot never answers."""
    name = "babyai/GoToImpUnlock"
    env, expert = make(name), get_expert(name)
    episode = collect_episode(env, name, expert, seed=6, noise=0.1, max_steps=265)
    assert episode.steps == 265 and episode.labels[-1] == env.unwrapped.actions.done


def test_the_bot_puts_down_what_it_holds_from_the_beginning() -> None:
    name = "babyai/PutNextS5N2Carrying"
    returns = [
        collect_episode(make(name), name, get_expert(name), seed).return_ for seed in range(3)
    ]
    assert min(returns) > 0
