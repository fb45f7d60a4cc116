"""Planners: they find what random play does not, within their budget, and the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from generalist.envs import get_task, make
from generalist.errors import UsageError
from generalist.experts import collect_episode, expert_names, get_expert, random_episode
from generalist.planning.sampling_planner import SamplingPlanner, linear_spline
from generalist.planning.simulators import AleSimulator, DmcSimulator
from generalist.planning.width_search import Node, WidthSearch


def rollout(name: str, expert: str, steps: int, seed: int = 0) -> Any:
    return collect_episode(make(name), name, get_expert(name, expert), seed, max_steps=steps)


@pytest.mark.parametrize(
    ("name", "expert", "steps", "least"),
    [
        ("gym/Pendulum-v1", "planner@128", 200, -500.0),
        ("gym/CartPole-v1", "planner@256", 120, 120.0),
        ("dmc/cartpole-balance", "planner@100", 60, 57.0),
        ("atari/Boxing", "planner@12", 100, 2.0),
    ],
)
def test_planners_do_far_better_than_random_play(
    name: str, expert: str, steps: int, least: float
) -> None:
    chance = random_episode(make(name), name, 0, max_steps=steps)
    assert rollout(name, expert, steps).return_ > least - 1e-6 > chance.return_


def test_without_rewards_in_sight_it_goes_where_it_has_not_been() -> None:
    """Torque is too weak to lift the pendulum at once, and only the top is rewarded."""
    assert rollout("dmc/pendulum-swingup", "planner@200", 450, seed=0).return_ > 20.0


@pytest.mark.parametrize("name", ["dmc/walker-walk", "gym/Acrobot-v1", "atari/Breakout"])
def test_a_seed_gives_the_same_plans(name: str) -> None:
    first, again = (rollout(name, "planner@20", 15, seed=2) for _ in range(2))
    assert np.array_equal(first.actions, again.actions)
    assert first.info["expert"] == "planner@20"


@pytest.mark.parametrize("name", ["gym/Pendulum-v1", "atari/Breakout"])
def test_asked_twice_about_a_state_it_answers_the_same(name: str) -> None:
    env, expert = make(name), get_expert(name, "planner@20")
    env.reset(seed=0)
    expert.reset(env, 0)
    for _ in range(4):
        label = expert.label(None, env)
        assert np.array_equal(label, expert.label(None, env))
        env.step(label)


@pytest.mark.parametrize(
    ("name", "simulator"), [("dmc/pendulum-swingup", DmcSimulator), ("atari/Pong", AleSimulator)]
)
@pytest.mark.parametrize("budget", [1, 7, 130])
def test_a_decision_takes_no_more_steps_than_its_budget(
    name: str, simulator: type, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    step = simulator.step

    def counted(self: Any, action: Any) -> Any:
        taken.append(action)
        return step(self, action)

    monkeypatch.setattr(simulator, "step", counted)
    env, expert = make(name), get_expert(name, f"planner@{budget}")
    env.reset(seed=0)
    expert.reset(env, 0)
    for _ in range(3):
        taken.clear()
        env.step(expert.label(None, env))
        assert 0.7 * budget <= len(taken) <= budget


def test_a_plan_is_kept_where_the_state_follows_and_dropped_elsewhere() -> None:
    env = make("dmc/cartpole-swingup")
    planner = SamplingPlanner(60)
    env.reset(seed=0)
    planner.reset(env, 0)
    env.step(planner.label(None, env))
    kept = planner._plan
    planner.fresh, planner.noise = 0.0, (1e-12, 1e-12)  # no variant differs from what it varies
    env.step(planner.label(None, env))
    assert np.allclose(planner._plan, kept, atol=1e-9)
    env.step(np.zeros(1))  # not asked about the state between
    planner.label(None, env)
    assert np.abs(planner._plan).max() < 1e-9


def test_the_tree_behind_the_executed_action_is_kept() -> None:
    env, planner = make("atari/Breakout", sticky=0.0), WidthSearch(30)
    env.reset(seed=0)
    planner.reset(env, 0)
    label = int(planner.label(None, env))
    below = planner._root.children
    executed = next((action for action in below if action != label), label)  # a disturbed one
    env.step(executed)
    planner.label(None, env)
    assert planner._root is below[executed]
    assert np.array_equal(planner._root.memory, env.unwrapped.ram())
    env.step(0)
    env.step(0)  # not asked about the state between
    planner.label(None, env)
    assert planner._root is not below[executed] and planner._root.depth == 3


def test_a_tree_that_foresaw_another_state_is_dropped() -> None:
    """Where an action sticks, what follows is not what was tried out."""
    env, planner = make("atari/Breakout", sticky=0.9), WidthSearch(30)
    env.reset(seed=0)
    planner.reset(env, 0)
    kept = []
    for _ in range(30):
        label = int(planner.label(None, env))
        child = planner._root.children[label]
        env.step(label)
        foreseen = np.array_equal(child.memory, env.unwrapped.ram())
        planner.label(None, env)
        assert np.array_equal(planner._root.memory, env.unwrapped.ram())
        assert (planner._root is child) == (foreseen and not child.lost)
        kept.append(foreseen)
    assert not all(kept)


def test_a_lost_life_is_worth_less_than_any_reward() -> None:
    planner = WidthSearch()
    planner._largest_reward = 7.0
    alive = Node(1, np.zeros(128, np.uint8), reward=0.0, lost=False)
    dead = Node(1, np.zeros(128, np.uint8), reward=7.0, lost=True)
    assert planner._worth(dead) < planner._worth(alive)


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (10, 3), (25, 5), (35, 7)])
def test_a_spline_goes_through_its_knots_and_straight_between(steps: int, every: int) -> None:
    spline = linear_spline(steps, every)
    times = np.arange(spline.shape[2]) * every
    values = np.random.default_rng(0).standard_normal(spline.shape[2])
    assert np.allclose(spline.sum(axis=2), 1.0)
    for phase in range(every):
        wanted = np.interp(phase + np.arange(steps), times, values)
        assert np.allclose(spline[phase] @ values, wanted)


def test_a_planner_is_named_with_its_budget() -> None:
    assert get_expert("atari/Breakout", "planner@33").name == "planner@33"
    assert get_expert("dmc/walker-walk").name == f"planner@{SamplingPlanner.default_budget}"
    own = "generalist.planning.sampling_planner:SamplingPlanner@99"
    assert get_expert("gym/CartPole-v1", own).name == "planner@99"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("planner@0", "at least 1"),
        ("planner@-5", "at least 1"),
        ("planner@many", "at least 1"),
        ("planner@", "at least 1"),
        ("lqr@5", "takes no budget"),
        ("plan@5", "no expert 'plan'"),
    ],
)
def test_wrong_budgets_are_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        get_expert("gym/CartPole-v1", name)


def test_the_better_controller_stays_the_default() -> None:
    assert expert_names("gym/CartPole-v1") == ("lqr", "planner")
    assert expert_names("atari/Pong")[0] == "paddle" and "planner" in expert_names("atari/Pong")
    assert get_task("gym/HalfCheetah-v5").default_expert == "planner"
    assert expert_names("babyai/GoToLocal") == ("bot",)


def test_actions_it_cannot_plan_are_refused() -> None:
    env = make("gym/Pendulum-v1")
    env.reset(seed=0)
    env.action_space = spaces.Box(-1.0, 1.0, (2, 2))
    with pytest.raises(UsageError, match="vectors and choices"):
        SamplingPlanner().reset(env, 0)
    walker = make("dmc/walker-walk")
    walker.reset(seed=0)
    with pytest.raises(UsageError, match="Atari"):
        WidthSearch().reset(walker, 0)
