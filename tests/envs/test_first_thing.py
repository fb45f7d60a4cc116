"""The first thing reached: by the simulator's state, in missions that decide which one it is."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from generalist.envs import make
from generalist.envs.first_thing import named_things
from generalist.experts import policy_named
from generalist.session import play

GO_TO = "babyai/GoToLocal"


def faced(env: gymnasium.Env) -> Any:
    """The thing before the agent, by the grid; None for walls and empty cells."""
    level: Any = env.unwrapped
    cell = level.grid.get(*level.front_pos)
    return None if cell is None or cell.type in ("wall", "door") else cell


@pytest.mark.parametrize("instructions", ["own", "shuffled", "none"])
def test_it_is_the_thing_first_faced_and_of_the_episodes_own_mission(instructions: str) -> None:
    """Random walks, which reach right and wrong things; the name is read off the mission's text."""
    env = make(GO_TO, instructions=instructions)
    rng = np.random.default_rng(0)
    outcomes = []
    for seed in range(60):
        env.reset(seed=seed)
        first, ended, info = None, False, {}
        while not ended:
            *_, terminated, truncated, info = env.step(int(rng.integers(3)))
            ended = terminated or truncated
            first = first or faced(env)
            if first is None:
                assert info["named_first"] is False  # nothing was reached so far
        mission = env.unwrapped.mission  # "go to the red ball", of which there may be several
        expected = first is not None and mission.endswith(f"{first.color} {first.type}")
        assert info["named_first"] == expected
        outcomes.append(expected)
    assert 3 < sum(outcomes) < 40


def test_the_bot_reaches_the_named_thing_first_far_more_often_than_chance() -> None:
    env = make(GO_TO)
    traces = list(play(policy_named(GO_TO, None, [env]), [env], range(40), task=GO_TO))
    assert all(trace.return_ > 0 for trace in traces)
    # It passes others on its way, so not always.
    assert 0.5 < np.mean([trace.named_first for trace in traces]) < 1


@pytest.mark.parametrize(
    "task, kinds",
    [
        ("babyai/GoToRedBall", {"ball"}),
        ("babyai/GoToDoor", {"door"}),
        ("babyai/PutNextLocal", {"ball", "box", "key"}),  # what is to be moved
        ("babyai/GoTo", {"ball", "box", "key"}),  # in other rooms too
        ("babyai/GoToSeq", {"ball", "box", "key"}),  # where no other door has to be opened
        ("babyai/UnlockPickup", None),  # the key comes first
        ("babyai/UnblockPickup", None),  # others may stand in its way
    ],
)
def test_missions_that_do_not_decide_it_say_nothing(task: str, kinds: set[str] | None) -> None:
    env = make(task)
    decided = 0
    for seed in range(10):
        env.reset(seed=seed)
        things = named_things(env.unwrapped)
        info = env.step(0)[4]
        assert ("named_first" in info) == (things is not None)
        if things is not None:
            decided += 1
            assert things and kinds and {each.type for each in things} <= kinds | {"door"}
    assert (decided > 2) == (kinds is not None)
