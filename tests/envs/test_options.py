"""Options of environments: what they are where not given, and which make another environment."""

from __future__ import annotations

from typing import Any

import pytest

from generalist.envs.options import changed_options, default_options, option_differences

OWN = "gym/tests.strange_envs:Strange-v0"


@pytest.mark.parametrize(
    ("task", "options", "changed"),
    [
        ("gym/CartPole-v1", {}, {}),
        ("gym/CartPole-v1", {"max_steps": 500}, {}),
        ("gym/CartPole-v1", {"max_steps": 499}, {"max_steps": 499}),
        ("gym/LunarLander-v3", {"gravity": -10, "enable_wind": False}, {}),
        ("gym/LunarLander-v3", {"gravity": -9.0}, {"gravity": -9.0}),  # spaces stay the same
        ("gym/FrozenLake-v1", {"map_name": "4x4"}, {}),  # the id's own argument
        ("gym/FrozenLake-v1", {"map_name": "8x8"}, {"map_name": "8x8"}),
        ("gym/Ant-v5", {"healthy_z_range": [0.2, 1.0]}, {}),  # as JSON gives a tuple back
        ("gym/MiniGrid-Empty-5x5-v0", {"size": 5}, {}),
        (OWN, {"fault": ""}, {}),
        (OWN, {"fault": "nan"}, {"fault": "nan"}),
        ("atari/Pong", {"sticky": 0.25, "max_steps": 27_000}, {}),
        ("atari/Pong", {"sticky": 0.0}, {"sticky": 0.0}),
        ("board/ConnectFour-6x7", {"opponent": "mcts@42", "side": None}, {}),
        ("board/ConnectFour-6x7", {"opponent": "mcts@41"}, {"opponent": "mcts@41"}),
        ("board/TicTacToe", {"max_steps": 5}, {}),  # the board is full by then
        ("babyai/GoToLocal", {"max_steps": 64, "instructions": "own"}, {}),
        ("babyai/GoToLocal", {"instructions": "none"}, {"instructions": "none"}),
        ("babyai/GoToLocal", {"max_steps": 65}, {"max_steps": 65}),
        ("doom/basic", {"frame_skip": 4, "mouse": False, "max_steps": 75}, {}),
        ("doom/defend_the_center", {"mouse": True}, {"mouse": True}),
        ("metaworld/push", {"flat": False, "to_the_end": False, "max_steps": 500}, {}),
        ("metaworld/push", {"flat": True}, {"flat": True}),
        ("dmc/walker-walk", {"max_steps": 1000}, {}),
    ],
)
def test_what_equals_its_default_changes_nothing(
    task: str, options: dict[str, Any], changed: dict[str, Any]
) -> None:
    assert changed_options(task, options) == changed


def test_a_level_with_limits_of_its_missions_is_changed_by_any_limit() -> None:
    name = "babyai/BossLevel"
    assert default_options(name)["max_steps"] is None
    assert changed_options(name, {"max_steps": 100}) == {"max_steps": 100}


def test_two_environments_differ_in_what_is_given_to_either() -> None:
    found = option_differences("atari/Pong", {"sticky": 0.0}, {"max_steps": 900})
    assert found == {"sticky": (0.0, 0.25), "max_steps": (27_000, 900)}
    assert option_differences("atari/Pong", {"sticky": 0.25}, {}) == {}
