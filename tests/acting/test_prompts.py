"""Prompts: what is asked in a demonstration is what is to be done."""

from __future__ import annotations

import numpy as np
import pytest

import generalist
from generalist.acting import prompts
from generalist.acting.agent import Agent
from generalist.acting.forms import Header
from generalist.acting.prompts import Prompts, demonstrations, instructions_of
from generalist.acting.rollout import rollout
from generalist.episode import Episode
from generalist.seeds import PROMPT_SEED
from tests.decoding.models import tiny_agent

MANY = "babyai/GoToLocal"
UNIQUE = "metaworld/reach"  # each goal is told in millimetres


def recorded(instruction: str | None, number: int) -> Episode:
    zeros = np.full((1, 1), number, np.float32)
    return Episode("own/Any", zeros, zeros, np.zeros(1), True, False, instruction=instruction)


def test_episodes_take_turns_with_the_demonstrations_of_their_instruction() -> None:
    told = ["left", "right", "left", "left", None]
    episodes = [recorded(each, number) for number, each in enumerate(told)]
    some = Prompts(episodes[:4], lambda each: each.actions[0].astype(int))
    assert [some.of("left", i) for i in range(4)] == [[0], [2], [3], [0]]
    assert [some.of("right", i) for i in range(2)] == [[1], [1]]
    assert some.of("up", 0) == some.of(None, 0) == []
    all_of_them = Prompts(episodes, lambda each: each.actions[0].astype(int))
    assert [all_of_them.of("right", i) for i in range(2)] == [[4], [1]]  # no words suit any
    assert all_of_them.of("up", 0) == all_of_them.of(None, 3) == [4]
    assert not Prompts() and Prompts().of("left", 0) == []


def test_demonstrations_are_found_for_every_instruction() -> None:
    wanted = instructions_of(MANY, range(1_000_000, 1_000_012))
    found = demonstrations(MANY, 2, instructions=wanted)
    told = [episode.instruction for episode in found]
    assert {each: told.count(each) for each in wanted} == dict.fromkeys(wanted, 2)
    assert len(found) == 2 * len(wanted) and min(e.info["seed"] for e in found) >= PROMPT_SEED
    assert all(episode.return_ > 0 for episode in found)


def test_what_nobody_else_is_told_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "PATIENCE", 5)
    wanted = instructions_of(UNIQUE, range(3))
    assert len(wanted) == 3 and demonstrations(UNIQUE, 1, instructions=wanted) == []
    assert instructions_of("gym/CartPole-v1", range(3)) == set()


def test_a_prompted_episode_is_shown_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = tiny_agent(MANY, window=1_024)
    headers: dict[int, tuple[str | None, Header]] = {}
    header = Agent.header

    def noted(
        agent: Agent,
        instruction: str | None = None,
        episode: int = 0,
        *,
        shown: str | None = None,
    ) -> Header:
        headers[episode] = instruction, header(agent, instruction, episode, shown=shown)
        return headers[episode][1]

    monkeypatch.setattr(Agent, "header", noted)
    result = rollout(agent, episodes=4, prompt_episodes=1, progress=False, max_steps=3)
    shown = demonstrations(MANY, 1, instructions={str(told) for told, _ in headers.values()})
    by_words = {episode.instruction: episode for episode in shown}
    env = generalist.make(MANY)
    for seed in result.seeds:
        told, shown_first = headers[seed]
        assert told == env.reset(seed=seed)[1]["instruction"]
        prompt = prompts.encode_prompt(by_words[told], agent.processor, agent.layout, 1_024)
        assert shown_first.ids[-len(prompt) :] == prompt.tolist()
    headers.clear()
    rollout(agent, episodes=4, prompt_episodes=1, instructions="shown", progress=False, max_steps=3)
    for seed in result.seeds:
        told, shown_first = headers[seed]
        mission = env.reset(seed=seed)[1]["instruction"]
        assert told is None
        prompt = prompts.encode_prompt(by_words[mission], agent.processor, agent.layout, 1_024)
        assert shown_first.ids[-len(prompt) :] == prompt.tolist()
    headers.clear()
    other = next(iter(by_words))
    rollout(agent, episodes=2, prompt_episodes=1, instruction=other, progress=False, max_steps=3)
    prompt = prompts.encode_prompt(by_words[other], agent.processor, agent.layout, 1_024)
    assert all(each.ids[-len(prompt) :] == prompt.tolist() for _, each in headers.values())
