"""Sessions: many in step as each alone; paused, overridden, told something else on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import generalist
from generalist.episode import Tree
from generalist.experts import (
    ExpertPolicy,
    RandomPolicy,
    collect_episode,
    demonstrate,
    get_expert,
    policy_named,
)
from generalist.policy import Decision
from generalist.session import EpisodeError, Session, advance, play

CARTPOLE, TAXI = "gym/CartPole-v1", "gym/Taxi-v4"
GOAL = "gym/tests.goal_env:Goal-v0"
STRANGE = "gym/tests.strange_envs:Strange-v0"


class Listening:
    """A policy that always does the same, and keeps what it is asked and told."""

    def __init__(self, action: int = 1) -> None:
        self.action = action
        self.begun: list[tuple[int, int, Any]] = []
        self.heard: list[tuple[int, Mapping[str, Any]]] = []
        self.calls: list[list[int]] = []
        self.ended: list[int] = []

    def begin(
        self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        told = [info.get("instruction") for info in infos]
        self.begun += zip(slots, seeds, told, strict=True)

    def decide(
        self, observations: Tree, infos: Sequence[Mapping[str, Any]], slots: Sequence[int]
    ) -> Decision:
        self.calls.append(list(slots))
        self.heard += zip(slots, infos, strict=True)
        values = np.array(slots, np.float32)
        return Decision(actions=np.full(len(slots), self.action), values=values)

    def end(self, slots: Sequence[int]) -> None:
        self.ended += slots


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (CARTPOLE, "random"),
        (CARTPOLE, None),
        (TAXI, "random"),
        ("babyai/GoToLocal", "random"),
        ("babyai/GoToLocal", None),
        ("board/TicTacToe", "mcts@20"),
    ],
)
@pytest.mark.parametrize("side_by_side", [2, 5])
def test_an_episode_does_not_depend_on_what_runs_beside_it(
    task: str, name: str | None, side_by_side: int
) -> None:
    alone_env = generalist.make(task)
    alone = policy_named(task, name, [alone_env])
    environments = [generalist.make(task) for _ in range(side_by_side)]
    policy = policy_named(task, name, environments)
    traces = list(play(policy, environments, range(7), task=task, keep_steps=True, max_steps=30))
    assert sorted(trace.seed for trace in traces) == list(range(7))
    for trace in traces:
        episode = demonstrate(alone, alone_env, task, trace.seed, max_steps=30)
        together = trace.to_episode({})
        assert np.array_equal(together.actions, episode.actions)
        assert np.array_equal(together.rewards, episode.rewards)


def test_one_call_decides_for_all_that_run() -> None:
    policy = Listening()
    environments = [generalist.make(GOAL) for _ in range(3)]
    assert len(list(play(policy, environments, range(10, 17), task=GOAL))) == 7
    assert policy.calls == [[0, 1, 2]] * 16 + [[0]] * 8  # 7 episodes of 8 steps in 3 slots
    assert sorted(seed for _, seed, _ in policy.begun) == list(range(10, 17))
    assert sorted(policy.ended) == [0, 0, 0, 1, 1, 2, 2]


def test_teachers_label_every_state_and_noise_keeps_the_label() -> None:
    environments = [generalist.make(GOAL, goal=goal) for goal in (0, 1, 2)]
    teacher = policy_named(GOAL, "tests.goal_env:Best", environments)
    traces = list(
        play(Listening(), environments, range(3), task=GOAL, keep_steps=True, teacher=teacher)
    )
    for trace in traces:
        assert trace.actions == [1] * 8 and trace.labels == [trace.seed] * 8
    env = generalist.make(GOAL, goal=2)
    expert = get_expert(GOAL, "tests.goal_env:Best")
    episode = collect_episode(env, GOAL, expert, 5, noise=1.0)
    assert episode.labels is not None
    assert (episode.labels == 2).all() and (episode.actions != 2).any()
    assert collect_episode(env, GOAL, expert, 5).labels is None


def session(policy: Any, seed: int = 3, **options: Any) -> Session:
    return Session(generalist.make(GOAL), policy, task=GOAL, seed=seed, **options)


def test_a_session_step_by_step() -> None:
    policy = Listening()
    one = session(policy, keep_steps=True)
    assert one.decision is None and one.trace.steps == 0 and not policy.begun
    one.step()
    assert policy.begun == [(0, 3, None)] and one.trace.actions == [1]
    assert one.decision is not None and one.decision.values is not None
    assert one.decision.values.tolist() == [0.0] and one.decision.actions.tolist() == [1]
    while not one.done:
        one.step()
    assert one.trace.steps == 8
    one.end()
    one.end()
    assert policy.ended == [0]


def test_paused_sessions_stand_still_while_others_go_on() -> None:
    policy = Listening()
    both = [session(policy, seed, slot=seed, keep_steps=True) for seed in (0, 1)]
    advance(both)
    both[0].paused = True
    for _ in range(3):
        advance(both)
    assert [each.trace.steps for each in both] == [1, 4]
    both[0].step()  # a single step, though it is paused
    both[0].paused = False
    advance(both)
    assert [each.trace.steps for each in both] == [3, 5]
    assert policy.calls == [[0, 1], [1], [1], [1], [0], [0, 1]]
    both[0].paused = both[1].paused = True
    advance(both)
    assert [each.trace.steps for each in both] == [3, 5]


def test_an_overridden_action_is_executed_and_the_policy_hears_of_it_once() -> None:
    policy = Listening()
    one = session(policy, keep_steps=True)
    one.step()
    one.override(2)
    for _ in range(3):
        one.step()
    assert one.trace.actions == [1, 2, 1, 1]
    heard = [info.get("executed_action") for _, info in policy.heard]
    assert heard == [None, None, 2, None]


def test_an_instruction_in_mid_episode_is_heard_once() -> None:
    policy = Listening()
    one, other = session(policy, instruction="first"), session(policy, seed=4, slot=1)
    other.instruct("before the first step")
    advance([one, other])
    assert policy.begun == [(0, 3, "first"), (1, 4, "before the first step")]
    one.instruct("second")
    advance([one, other])
    advance([one, other])
    heard = [info.get("new_instruction") for _, info in policy.heard]
    assert heard == [None, None, "second", None, None, None]
    assert one.trace.instruction == "second"


def test_sessions_of_several_policies_advance_together() -> None:
    first, second = Listening(0), Listening(2)
    sessions = [session(first, 0), session(second, 1), session(first, 2, slot=1)]
    while not all(each.done for each in sessions):
        advance(sessions)
    assert [each.trace.return_ for each in sessions] == [8.0, 0.0, 8.0]
    assert first.calls == [[0, 1]] * 8 and second.calls == [[0]] * 8


def test_an_expert_that_fails_in_a_batch_is_blamed_in_its_own_episode() -> None:
    environments = [generalist.make(STRANGE) for _ in range(3)]
    names = ["Patient", "Failing", "Patient"]
    experts = [get_expert(STRANGE, f"tests.strange_envs:{name}") for name in names]
    policy = ExpertPolicy(experts, environments)
    with pytest.raises(EpisodeError, match="seed 21, step 3: the expert Failing raised KeyError"):
        list(play(policy, environments, [20, 21, 22], task=STRANGE))


def test_cut_short_the_policy_forgets_what_ran() -> None:
    policy = Listening()
    environments = [generalist.make(GOAL) for _ in range(2)]
    played = play(policy, environments, range(9), task=GOAL)
    next(played)
    assert policy.ended == [0]
    played.close()
    assert sorted(policy.ended) == [0, 1]


def test_random_play_draws_from_the_space_as_it_is() -> None:
    """A copy for each episode: nothing that others draw from the space matters."""
    space: gymnasium.Space = spaces.Dict({"keys": spaces.MultiBinary(3), "aim": spaces.Box(-1, 1)})
    policy = RandomPolicy(space)
    policy.begin([0, 1], [5, 6], [{}, {}])
    space.seed(0)
    space.sample()
    both = policy.decide(np.zeros(2), [{}, {}], [0, 1]).actions
    policy.begin([4], [6], [{}])
    alone = policy.decide(np.zeros(1), [{}], [4]).actions
    assert np.array_equal(both["keys"][1], alone["keys"][0]) and both["aim"].shape == (2, 1)
    policy.end([0, 1, 4, 9])
