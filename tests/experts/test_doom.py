"""Doom's players: labels at any state, better than chance, and a map they can read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from generalist.envs import get_task, list_tasks, make
from generalist.experts import collect_episode, get_expert, random_episode
from generalist.experts.doom_floor import Floor


def test_every_player_labels_any_state_and_does_not_remember() -> None:
    for task in list_tasks("doom"):
        if not task.default_expert:
            continue
        env = task.make()
        env.action_space.seed(0)
        observation, _ = env.reset(seed=0)
        old = get_expert(task.name)
        old.reset(env, 0)
        for _ in range(4):
            new = get_expert(task.name)
            new.reset(env, 0)
            label, again = old.label(observation, env), new.label(observation, env)
            assert env.action_space.contains(label), (task.name, label)
            assert str(label) == str(again), task.name
            observation, _, over, *_ = env.step(env.action_space.sample())
            if over:
                break
        env.close()


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("doom/basic", {}, None),
        ("doom/defend_the_line", {"mouse": True}, 150),
        ("doom/health_gathering", {}, 150),
        ("doom/take_cover", {}, 250),
    ],
)
def test_players_beat_chance(name: str, options: dict[str, Any], steps: int | None) -> None:
    env, task = make(name, **options), get_task(name)
    assert task.default_expert
    expert = [
        collect_episode(env, name, get_expert(name), seed, max_steps=steps).return_
        for seed in range(2)
    ]
    chance = [random_episode(env, name, seed, max_steps=steps).return_ for seed in range(2)]
    assert np.mean(expert) > np.mean(chance), (expert, chance)
    env.close()


def line(x1: float, y1: float, x2: float, y2: float) -> SimpleNamespace:
    return SimpleNamespace(x1=x1, y1=y1, x2=x2, y2=y2, is_blocking=True)


def room(*inside: SimpleNamespace) -> SimpleNamespace:
    corners = [(0, 0), (400, 0), (400, 400), (0, 400), (0, 0)]
    walls = [line(*corners[i], *corners[i + 1]) for i in range(4)]
    return SimpleNamespace(lines=[*walls, *inside])


def test_the_way_leads_around_a_wall() -> None:
    wall = line(200, 0, 200, 300)
    floor = Floor([room(wall)])
    here, goal = np.array([100.0, 100.0]), np.array([300.0, 100.0])
    assert not floor.sees(here, goal) and floor.sees(here, np.array([100.0, 350.0]))
    walked = 0.0
    while np.linalg.norm(goal - here) > 5 and walked < 2000:
        point = floor.way(here, goal[None])
        assert point is not None
        step = (point - here) / max(1.0, np.linalg.norm(point - here) / 10)
        assert floor.sees(here, here + step), "through the wall"
        here, walked = here + step, walked + np.linalg.norm(step)
    # Up to the wall's end at 300, around it and down again; the bird's way is 400 and a little.
    assert 400 < walked < 600


def test_no_way_is_said_and_poison_is_walked_around() -> None:
    closed = Floor([room(line(200, 0, 200, 400))])
    here, goal = np.array([100.0, 200.0]), np.array([[300.0, 200.0]])
    assert closed.way(here, goal) is None
    free = Floor([room()])
    assert np.array_equal(free.way(here, goal), goal[0])
    avoiding = free.without(np.array([[200.0, 200.0]]))
    assert abs(avoiding.way(here, goal)[1] - 200.0) > 20


def test_one_sees_through_a_window_but_does_not_walk_through_it() -> None:
    window = line(200, 0, 200, 400)
    floor = Floor([room(window), SimpleNamespace(lines=[window])])
    here, there = np.array([100.0, 200.0]), np.array([300.0, 200.0])
    assert floor.sees(here, there) and floor.way(here, there[None]) is None
