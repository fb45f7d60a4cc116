"""Attempts: what is kept succeeded, or is told as what it did instead; the rest leaves nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from generalist.acting.attempts import HINDSIGHT, SUCCESS, Terms, attempt
from generalist.acting.rollout import rollout
from generalist.envs import make
from generalist.episode import tree_map
from generalist.seeds import IMPROVEMENT_SEED
from generalist.tokenization.processor import GeneralistProcessor
from generalist.tokenization.returns import TaskReturns
from tests.decoding.models import compact_agent

TASK = "babyai/PickupDist"
RETURNS = TaskReturns(0.0, 1.0, 0.99, 256, ((0.0, 0.0), (1.0, 1.0)))
SEEDS = range(IMPROVEMENT_SEED, IMPROVEMENT_SEED + 16)
TERMS = Terms(
    attempts=2, least_return=None, least_value=None, keep="all", last_steps=None,
    named_first=True, hindsight=True, temperature=1.0, max_steps=40,
)  # fmt: skip


@pytest.fixture(scope="module")
def agent():
    return compact_agent(TASK)


@pytest.fixture(scope="module")
def found(agent):
    """All that is kept of two attempts at each of 16 proposals."""
    return attempt(agent, TASK, SEEDS, TERMS, options={})


def test_what_is_kept_earns_what_it_says_under_its_instruction(found):
    replay(TASK, found.episodes)


@pytest.mark.parametrize("task", ["miniworld/GoTo", "doomworld/PickUp"])
def test_in_3d_too_what_is_kept_earns_what_it_says(task):
    """From frames, with keys and mouse; what was done instead is what the state says."""
    agent = compact_agent(task, processor=GeneralistProcessor.default("worlds"))
    found = attempt(agent, task, SEEDS[:8], replace(TERMS, attempts=1), options={})
    assert found.hindsight > 0
    replay(task, found.episodes)


def replay(task, episodes):
    """Play the actions of episodes again, and compare what the environment says of them."""
    env = make(task)
    for episode in episodes:
        _, info = env.reset(seed=episode.info["seed"])
        for step in range(episode.steps):
            action = tree_map(lambda leaf, step=step: leaf[step], episode.actions)
            _, reward, terminated, _, after = env.step(action)
        own = episode.info["source"] == SUCCESS
        assert terminated >= own and episode.terminated and episode.success is not False
        assert (episode.instruction == info["instruction"]) == own
        expected = (info["instruction"], reward) if own else tuple(after["hindsight"].values())
        assert (episode.instruction, episode.rewards[-1]) == (
            expected[0], pytest.approx(expected[1]),
        )  # fmt: skip
        assert not episode.rewards[:-1].any()
        assert episode.labels is None
    env.close()


def test_failures_are_counted_and_leave_nothing(agent, found):
    sources = [episode.info["source"] for episode in found.episodes]
    assert found.proposals == 16 and found.attempts == 32 and found.steps <= 32 * 40
    assert 0 < found.successes < 32 and 0 < found.solved <= found.successes
    assert found.agreed == 32
    assert (found.kept, found.hindsight) == (sources.count(SUCCESS), sources.count(HINDSIGHT))
    assert found.kept == found.successes and found.hindsight > 0
    plain = attempt(agent, TASK, SEEDS, replace(TERMS, hindsight=False), options={})
    assert {e.info["source"] for e in plain.episodes} == {SUCCESS}
    assert len(plain.episodes) == plain.successes == found.successes


def test_of_several_successes_the_shortest_is_kept(agent, found):
    shortest = attempt(
        agent, TASK, SEEDS, replace(TERMS, keep="shortest", hindsight=False), options={}
    )
    steps: dict[int, list[int]] = {}
    for episode in found.episodes:
        if episode.info["source"] == SUCCESS:
            steps.setdefault(episode.info["seed"], []).append(episode.steps)
    assert {e.info["seed"]: e.steps for e in shortest.episodes} == {
        seed: min(each) for seed, each in steps.items()
    }
    assert shortest.kept == shortest.solved == found.solved


def test_the_last_steps_may_be_kept_alone(agent, found):
    cut = attempt(agent, TASK, SEEDS, replace(TERMS, last_steps=5), options={}).episodes
    assert [each.steps for each in cut] == [min(5, each.steps) for each in found.episodes]
    for end, whole in zip(cut, found.episodes, strict=True):
        for part in ("actions", "rewards"):
            assert np.array_equal(getattr(end, part), getattr(whole, part)[-5:])
        for name, seen in end.observations.items():
            assert np.array_equal(seen, whole.observations[name][-5:])
        assert end.instruction == whole.instruction and end.info == whole.info


def test_attempts_sample_otherwise_and_the_first_as_a_rollout_does(agent):
    everything = {"least_return": -math.inf, "named_first": False, "hindsight": False}
    terms = replace(TERMS, **everything)
    played = attempt(agent, TASK, SEEDS[:4], terms, options={}).episodes
    first, second = ([e for e in played if e.info["attempt"] == number] for number in (0, 1))
    lengths = rollout(agent, episodes=4, seed=SEEDS[0], progress=False, max_steps=40).lengths
    assert [len(played), *(episode.steps for episode in first)] == [8, *lengths]
    assert any(
        not np.array_equal(one.actions, other.actions)
        for one, other in zip(first, second, strict=True)
    )


def test_who_wanders_into_success_is_not_imitated():
    """GoToLocal is solved by going from thing to thing; only the way to the first is kept."""
    agent = compact_agent("babyai/GoToLocal")
    terms = replace(TERMS, attempts=1, max_steps=None)
    found = attempt(agent, "babyai/GoToLocal", SEEDS, terms, options={})
    env = make("babyai/GoToLocal")
    assert found.kept < found.successes
    for episode in found.episodes:
        env.reset(seed=episode.info["seed"])
        told = [env.step(action)[4] for action in episode.actions]
        if episode.info["source"] == SUCCESS:
            assert told[-1]["named_first"] and not any("hindsight" in info for info in told)
        else:
            assert ["hindsight" in info for info in told] == [False] * (len(told) - 1) + [True]
    lenient = replace(terms, named_first=False, hindsight=False)
    assert attempt(agent, "babyai/GoToLocal", SEEDS, lenient, options={}).kept == found.successes


def test_the_agents_own_value_may_judge():
    agent = compact_agent(TASK, returns=RETURNS)
    for least, every in ((-math.inf, True), (math.inf, False)):
        terms = replace(
            TERMS, attempts=1, least_value=least, hindsight=False, named_first=False, max_steps=10
        )
        found = attempt(agent, TASK, SEEDS, terms, options={})
        assert found.successes == found.kept == (16 if every else 0)
        assert found.agreed < 16 if every else found.agreed > 0
