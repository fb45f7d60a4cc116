"""Simulators: what is foreseen is what happens where nothing is left to chance.

Who looks ahead leaves no trace, and does not see what chance is about to bring.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from generalist.envs import get_task, list_tasks, make
from generalist.episode import tree_leaves
from generalist.errors import UsageError
from generalist.experts import get_expert
from generalist.planning.simulators import borrowed, simulator_of

TASKS = [
    "gym/CartPole-v1",
    "gym/Pendulum-v1",
    "gym/MountainCar-v0",
    "gym/Acrobot-v1",
    "gym/HalfCheetah-v5",
    "gym/Ant-v5",
    "dmc/pendulum-swingup",
    "dmc/walker-walk",  # contacts, so warm starts of the solver
    "atari/Breakout",
    "atari/Qbert",  # whose first frame the emulator does not restore
]
RNG = np.random.default_rng(7)
BUDGETS = {"gym": 60, "dmc": 60, "atari": 8}


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, whatever the nesting."""
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for (_, a), (_, b) in pairs)


def play(name: str, look_ahead: Any = None, steps: int = 25) -> list[tuple[Any, float, bool]]:
    """What random actions lead to; `look_ahead(env, action)` is called before each of them."""
    env = make(name)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=5)
    seen = [(observation, 0.0, False)]
    for _ in range(steps):
        action = env.action_space.sample()
        if look_ahead is not None:
            look_ahead(env, action)
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append((observation, float(reward), terminated))
        if terminated or truncated:
            break
    return seen


@pytest.mark.parametrize("name", TASKS)
def test_an_episode_is_the_same_with_a_planner_looking_ahead_at_every_step(name: str) -> None:
    budget = BUDGETS[name.partition("/")[0]]
    expert = get_expert(name, f"planner@{budget}")
    began: list[gymnasium.Env] = []

    def plan(env: gymnasium.Env, action: Any) -> None:
        if not began:
            expert.reset(env, 0)
            began.append(env)
        assert env.action_space.contains(expert.label(None, env))

    for alone, watched in zip(play(name), play(name, plan), strict=True):
        assert same(alone[0], watched[0]) and alone[1:] == watched[1:]


@pytest.mark.parametrize(
    "wrapper",
    [
        {"name": "FrameStackObservation", "kwargs": {"stack_size": 3}},
        {"name": "DelayObservation", "kwargs": {"delay": 2}},
        {"name": "TimeAwareObservation"},
    ],
)
def test_what_wrappers_remember_is_restored_too(wrapper: dict[str, Any]) -> None:
    def played(looks_ahead: bool) -> list[Any]:
        env = make("gym/CartPole-v1", wrappers=[wrapper])
        env.action_space.seed(0)
        seen = [env.reset(seed=5)[0]]
        for _ in range(8):
            if looks_ahead:
                simulator = simulator_of(env)
                with borrowed(simulator, np.random.default_rng(0)) as state:
                    first = [simulator.look(action)[0] for action in (1, 1, 0)]
                    simulator.restore(state)
                    assert same([simulator.look(action)[0] for action in (1, 1, 0)], first)
            seen.append(env.step(env.action_space.sample())[0])
        return seen

    assert same(played(True), played(False))


@pytest.mark.parametrize("name", TASKS)
def test_what_is_foreseen_is_what_happens(name: str) -> None:
    env = make(name, **({"sticky": 0.0} if "atari" in name else {}))
    env.action_space.seed(1)
    env.reset(seed=3)
    simulator = simulator_of(env)
    over = False
    for _ in range(3):
        actions = [env.action_space.sample() for _ in range(8)]
        with borrowed(simulator, RNG) as state:
            foreseen = [(*simulator.step(a), simulator.features().copy()) for a in actions]
            simulator.restore(state)  # so that a restored state is seen to be the saved one
            looked = [simulator.look(a) for a in actions]
        for action, (reward, ends, features), look in zip(actions, foreseen, looked, strict=True):
            assert simulator.steps() == env.get_wrapper_attr("steps") if "atari" in name else True
            observation, real, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            assert (real, over) == (reward, ends) == look[1:]
            assert same(simulator.features(), features) and same(observation, look[0])
            if over:
                return


def other_sticks(env: Any) -> None:
    """All that the emulator will do from here on with the button it holds."""
    env._sticks[env._frame :] ^= True


def other_noise(env: Any) -> None:
    """What pushes the two links besides the motor."""
    env.np_random.random(3)


def noisy(name: str) -> gymnasium.Env:
    env = make(name)
    if "Acrobot" in name:
        env.unwrapped.torque_noise_max = 1.0  # type: ignore[attr-defined]
    return env


CHANCE = [
    ("atari/Breakout", other_sticks),
    ("atari/Boxing", other_sticks),
    ("gym/Acrobot-v1", other_noise),
]


@pytest.mark.parametrize(("name", "other_future"), CHANCE)
def test_a_plan_does_not_know_what_chance_will_bring(name: str, other_future: Any) -> None:
    """Two games that are the same so far, and go on differently whatever is done."""
    budget = {"atari": 500, "gym": 200}[name.partition("/")[0]]
    for steps in (0, 20, 40):
        labels, ahead = [], []
        for change in (False, True):
            env, expert = noisy(name), get_expert(name, f"planner@{budget}")
            env.action_space.seed(1)
            env.reset(seed=2)
            for _ in range(steps):
                env.step(env.action_space.sample())
            expert.reset(env, 2)
            if change:
                other_future(env.unwrapped)
            labels.append(expert.label(None, env))
            for _ in range(5):
                seen = env.step(env.action_space.sample())[0]
            ahead.append(seen)
        assert labels[0] == labels[1], steps
    assert not same(*ahead)  # it was another future


@pytest.mark.parametrize("name", ["atari/Breakout", "gym/Acrobot-v1"])
def test_what_is_drawn_while_planning_is_not_drawn_from_the_environment(name: str) -> None:
    """An episode with noise is the same with a planner looking ahead as without."""

    def played(plans: bool) -> list[Any]:
        env, expert = noisy(name), get_expert(name, "planner@60")
        env.action_space.seed(1)
        seen = [env.reset(seed=2)[0]]
        expert.reset(env, 2)
        for _ in range(12):
            if plans:
                expert.label(None, env)
            seen.append(env.step(env.action_space.sample())[0])
        return seen

    assert all(same(a, b) for a, b in zip(played(True), played(False), strict=True))


def test_a_task_of_the_suite_draws_from_the_planner_while_it_plans() -> None:
    """No task draws in a step, but one of the user's own may."""
    env = make("dmc/pendulum-swingup")
    env.reset(seed=0)
    simulator = simulator_of(env)
    task = env.unwrapped._env.task  # type: ignore[attr-defined]
    before = task.random.get_state()[2], task.random.get_state()[1].copy()
    with borrowed(simulator, np.random.default_rng(1)) as state:
        first = task.random.random_sample(4)
        simulator.restore(state)
        assert (task.random.random_sample(4) != first).all()  # each try is another one
    assert (np.random.default_rng(1).random(4) == first).all()
    assert task.random.get_state()[2] == before[0]
    assert (task.random.get_state()[1] == before[1]).all()


@pytest.mark.parametrize("name", ["gym/CartPole-v1", "dmc/pendulum-swingup", "atari/Breakout"])
def test_the_end_of_an_episode_is_foreseen_and_undone(name: str) -> None:
    env = make(name, max_steps=6)
    env.action_space.seed(0)
    env.reset(seed=0)
    simulator = simulator_of(env)
    actions = [env.action_space.sample() for _ in range(6)]
    with borrowed(simulator, RNG):
        assert [simulator.step(action)[1] for action in actions] == [False] * 5 + [True]
    assert simulator.steps() == 0
    ends = [env.step(action)[3] for action in actions]
    assert ends == [False] * 5 + [True]


def test_a_failure_while_looking_ahead_leaves_no_trace() -> None:
    env = make("dmc/walker-walk")
    env.reset(seed=0)
    simulator = simulator_of(env)
    before = simulator.features()
    with pytest.raises(ZeroDivisionError), borrowed(simulator, RNG):
        simulator.step(np.ones(6))
        raise ZeroDivisionError
    assert same(simulator.features(), before) and simulator.steps() == 0


@pytest.mark.parametrize("name", ["gym/LunarLander-v3", "atari/TicTacToe3D"])
def test_what_cannot_be_restored_is_refused(name: str) -> None:
    env = make(name)
    env.reset(seed=0)
    with pytest.raises(UsageError, match="saves and restores"):
        simulator_of(env)
    with pytest.raises(UsageError, match="no expert 'planner'"):
        get_expert(name, "planner")


def planned(family: str) -> list[str]:
    return [t.name for t in list_tasks(family) if get_task(t.name).default_expert]


@pytest.mark.slow
@pytest.mark.parametrize("name", planned("dmc") + planned("atari"))
def test_every_task_with_a_planner_is_left_as_it_was(name: str) -> None:
    rng = np.random.default_rng(0)

    def look_ahead(env: gymnasium.Env, action: Any) -> None:
        simulator = simulator_of(env)
        with borrowed(simulator, rng) as state:
            for _ in range(2):
                for _ in range(int(rng.integers(1, 8))):
                    if simulator.step(action)[1]:
                        break
                simulator.restore(state)

    for alone, watched in zip(play(name), play(name, look_ahead), strict=True):
        assert same(alone[0], watched[0]) and alone[1:] == watched[1:]
