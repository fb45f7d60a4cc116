"""Skills beyond going to a thing: what is done in place of what was asked loses, and is named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from generalist.envs import make
from generalist.envs.controls import pressed
from generalist.envs.doomworld import WORLD as DOOMWORLD
from generalist.envs.miniworld import WORLD as MINIWORLD
from generalist.envs.mission_words import _TEMPLATES
from generalist.envs.missions import STOP_STEPS, FollowWall, Goal, Mission, Shoot, Touch
from generalist.envs.skills import Palette
from generalist.experts.worlds import WorldGuide


def mistaken(env: Any, observation: Any, goal: Goal) -> dict[str, Any]:
    """The last info of an episode, just reset, whose guide takes this goal for what is asked."""
    base = env.unwrapped
    other = SimpleNamespace(room=base.room, mission=Mission([goal], base.room.scene))
    guide: Any = WorldGuide()
    guide.reset(env, 0)
    info: dict[str, Any] = {}
    while base.mission is not None:
        action = guide.label(observation, SimpleNamespace(unwrapped=other))
        observation, *_, info = env.step(action)
    return info


def test_there_are_forty_tasks_of_eight_skills_in_two_worlds() -> None:
    skills = [
        (world.kit, skill)
        for world in (MINIWORLD, DOOMWORLD)
        for name, skill in world.skills.items()
        if name != "Any"
    ]
    assert len(skills) >= 40
    goals = {
        type(goal)
        for kit, skill in skills
        for goal in skill.plan(Palette(np.random.default_rng(0), kit)).goals
    }
    assert len(goals) >= 8


def test_the_wall_on_the_other_side_is_another_instruction() -> None:
    env = make("miniworld/FollowWall")
    observation, _ = env.reset(seed=0)
    other = {"left": "right", "right": "left"}[env.unwrapped.mission.goal.side]
    info = mistaken(env, observation, FollowWall(side=other))
    assert not info["success"]
    assert info["hindsight"]["instruction"] in _TEMPLATES["seen"][f"wall-{other}"]
    env.close()


@pytest.mark.parametrize("world", ["miniworld", "doomworld"])
def test_one_thing_too_many_is_a_wrong_count(world: str) -> None:
    env = make(f"{world}/Count")
    for seed in range(20):
        observation, info = env.reset(seed=seed)
        touch = env.unwrapped.mission.goal
        if touch.number == 1:
            break
    assert "one" in info["instruction"]
    assert not mistaken(env, observation, Touch(touch.targets, number=3))["success"]
    assert env.unwrapped.room.scene.steps < env.unwrapped.skill.steps
    env.close()


def test_who_was_shot_is_what_another_instruction_would_have_named() -> None:
    env = make("doomworld/Shoot")
    observation, _ = env.reset(seed=0)
    right = env.unwrapped.mission.goal.targets[0]
    wrong = next(each for each in env.unwrapped.room.scene.things if each is not right)
    info = mistaken(env, observation, Shoot((wrong,)))
    assert not info["success"] and info["named_first"] is False
    assert f"the {wrong.colour} {wrong.kind}" in info["hindsight"]["instruction"]
    env.close()


def test_who_is_to_stop_and_does_not_has_lost() -> None:
    env = make("miniworld/GoToStop")
    observation, _ = env.reset(seed=0)
    guide: Any = WorldGuide()
    guide.reset(env, 0)
    mission = env.unwrapped.mission
    while mission.goal is mission.goals[0]:
        observation, *_ = env.step(guide.label(observation, env))
    for step in range(STOP_STEPS):
        *_, terminated, _, info = env.step(pressed(yaw=30))
        assert terminated == (step == STOP_STEPS - 1)
    assert not info["success"] and info["named_first"]
    env.close()
