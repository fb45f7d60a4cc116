"""Rollouts on real environments: each seed once, whatever runs side by side."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import generalist
from generalist.acting.agent import Agent
from generalist.acting.rollout import dagger_episodes, rollout
from generalist.decoding.sampling import Sampling
from generalist.errors import GeneralistError, UsageError
from generalist.seeds import EVALUATION_SEED
from generalist.session import Trace, play
from generalist.tokenization.processor import GeneralistProcessor
from tests.decoding.models import tiny_agent, tiny_model

CARTPOLE, PENDULUM = "gym/CartPole-v1", "gym/Pendulum-v1"
TAXI = "gym/Taxi-v4"  # says which actions are legal
KEYS = {
    "task",
    "checkpoint",
    "episodes",
    "seeds",
    "returns",
    "mean",
    "stderr",
    "lengths",
    "random",
    "expert",
    "normalized",
    "prompted",
    "steps_per_second",
}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_results_do_not_depend_on_the_number_of_environments(temperature: float) -> None:
    agent = tiny_agent(CARTPOLE, sampling=Sampling(temperature))
    results = [
        rollout(agent, episodes=7, num_envs=num_envs, progress=False) for num_envs in (1, 3, 7)
    ]
    assert results[0].seeds == [EVALUATION_SEED + i for i in range(7)]
    for other in results[1:]:
        assert other.seeds == results[0].seeds
        assert other.returns == results[0].returns
        assert other.lengths == results[0].lengths


def test_returns_are_those_of_the_environment_stepped_by_hand() -> None:
    agent = tiny_agent(CARTPOLE)
    result = rollout(agent, episodes=3, seed=5, progress=False)
    env = generalist.make(CARTPOLE)
    for i in range(3):
        observation, _ = env.reset(seed=5 + i)
        total, done, first = 0.0, False, True
        while not done:
            action = agent.act(observation, first=first, seeds=[5 + i])
            observation, reward, terminated, truncated, _ = env.step(action)
            total, done, first = total + float(reward), terminated or truncated, False
        assert result.returns[i] == total
    assert result.mean == pytest.approx(np.mean(result.returns))
    assert result.stderr == pytest.approx(np.std(result.returns, ddof=1) / np.sqrt(3))


def test_the_result_has_the_documented_keys_and_is_json() -> None:
    result = rollout(tiny_agent(CARTPOLE), episodes=1, progress=False).to_dict()
    assert set(result) >= KEYS
    assert json.loads(json.dumps(result)) == result
    assert result["stderr"] is None and result["steps_per_second"] > 0


def test_a_task_not_trained_on_gets_the_layout_of_its_spaces() -> None:
    result = rollout(tiny_agent(CARTPOLE), PENDULUM, episodes=1, progress=False)
    assert result.task == PENDULUM and result.lengths == [200]


def test_instructions_of_the_environment_reach_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """BabyAI says its mission at reset; each episode's header holds its own."""
    task = "babyai/GoToLocal"
    agent = tiny_agent(task, window=512)
    heard = []
    header = agent.header
    monkeypatch.setattr(
        agent, "header", lambda *given, **shown: heard.append(given) or header(*given, **shown)
    )
    result = rollout(agent, episodes=3, num_envs=2, progress=False, max_steps=6)
    assert all(length <= 6 for length in result.lengths)
    env = generalist.make(task)
    missions = {seed: env.reset(seed=seed)[1]["instruction"] for seed in result.seeds}
    assert {seed: instruction for instruction, seed in heard} == missions
    assert result.metric == "success"


def test_prompted_rollouts_leave_the_callers_agent_alone() -> None:
    agent = tiny_agent(CARTPOLE, window=256)
    result = rollout(agent, episodes=2, prompt_episodes=1, progress=False)
    assert result.prompted and not agent.prompted


def test_a_video_shows_the_first_episode(tmp_path: Path) -> None:
    import imageio.v3

    result = rollout(tiny_agent(CARTPOLE), episodes=3, video_dir=tmp_path, progress=False)
    assert result.video is not None
    frames = imageio.v3.imread(result.video)
    assert len(frames) == result.lengths[0] + 1  # one more than actions: the reset
    assert frames.shape[2] == 600 and frames[-1].std() > 0


def test_ctrl_c_scores_what_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt arrives in the middle of a step, after two episodes have ended."""
    ended = 0
    step = Trace.step

    def interrupting(trace: Trace, action: Any) -> None:
        nonlocal ended
        if ended >= 2:
            raise KeyboardInterrupt
        step(trace, action)
        ended += trace.done

    monkeypatch.setattr(Trace, "step", interrupting)
    agent = tiny_agent(CARTPOLE)
    result = rollout(agent, episodes=5, num_envs=2, progress=False)
    assert result.interrupted and result.episodes == 2 and len(result.returns) == 2
    with pytest.raises(KeyboardInterrupt):
        rollout(agent, episodes=5, num_envs=2, progress=False)


def test_dagger_keeps_what_the_agent_did_and_what_the_expert_would_have_done() -> None:
    agent = tiny_agent(CARTPOLE)
    found = dagger_episodes(agent, episodes=4, seed=30, num_envs=2, progress=False)
    assert [episode.info["seed"] for episode in found] == [30, 31, 32, 33]
    result = rollout(agent, episodes=4, seed=30, progress=False)
    from generalist.experts import get_expert

    expert = get_expert(CARTPOLE)
    env = generalist.make(CARTPOLE)
    for episode, return_ in zip(found, result.returns, strict=True):
        assert episode.return_ == return_
        observation, _ = env.reset(seed=episode.info["seed"])
        expert.reset(env, episode.info["seed"])
        for t in range(episode.steps):  # replayed: same states, same labels
            np.testing.assert_array_equal(observation, episode.observations[t])
            assert expert.label(observation, env) == episode.labels[t]
            observation, *_ = env.step(episode.actions[t])
    assert any((episode.labels != episode.actions).any() for episode in found)
    ids = agent.processor.encode(found[0], agent.layout)
    assert len(ids) == found[0].steps * agent.layout.tokens_per_timestep


def test_nonsense_is_refused() -> None:
    agent = tiny_agent(CARTPOLE)
    with pytest.raises(UsageError, match="episodes must be at least 1"):
        rollout(agent, episodes=0)
    with pytest.raises(UsageError, match="no task"):
        rollout(agent, "gym/NoSuchThing-v0", episodes=1)
    with pytest.raises(GeneralistError, match="quarter of the window"):
        rollout(tiny_agent(PENDULUM, window=16), episodes=1, prompt_episodes=1)


def test_time_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(perf_counter=iter([10.0, 14.0]).__next__)
    monkeypatch.setattr(importlib.import_module("generalist.acting.rollout"), "time", clock)
    result = rollout(tiny_agent(CARTPOLE), episodes=2, progress=False)
    assert result.steps_per_second == sum(result.lengths) / 4


def test_success_is_what_the_environment_says_and_not_a_positive_return() -> None:
    result = rollout(
        tiny_agent(CARTPOLE), "metaworld/reach", episodes=2, progress=False, max_steps=5
    )
    assert result.metric == "success" and result.scores == [0.0, 0.0] and result.mean == 0.0
    assert min(result.returns) > 0 and result.lengths == [5, 5]


def test_an_agent_that_sees_frames_presses_keys_and_moves_the_mouse() -> None:
    name = "doom/defend_the_center"
    processor = GeneralistProcessor.default()
    env = generalist.make(name, mouse=True)
    layouts = {name: processor.layout(env.observation_space, env.action_space, task=name)}
    env.close()
    model = tiny_model(window=256, size=processor.vocabulary.size)
    agent = Agent(model, processor, layouts, task=name, sampling=Sampling(1.0))
    result = rollout(agent, episodes=2, progress=False, max_steps=4, mouse=True)
    assert result.lengths == [4, 4] and result.scores == result.returns


def test_an_environment_that_says_which_actions_are_legal_sees_no_other() -> None:
    """Taxi; Gymnasium's convention is an `action_mask` in the info of resets and steps."""
    agent = tiny_agent(TAXI)
    environments = [generalist.make(TAXI) for _ in range(2)]
    state = [None, None]
    illegal = 0

    def watching(number: int) -> None:
        env = environments[number]
        reset, step = env.reset, env.step

        def watched_reset(**options: Any) -> Any:
            state[number] = (found := reset(**options))[1]["action_mask"]
            return found

        def watched_step(action: Any) -> Any:
            nonlocal illegal
            illegal += not state[number][action]
            state[number] = (found := step(action))[4]["action_mask"]
            return found

        env.reset, env.step = watched_reset, watched_step

    for number in range(2):
        watching(number)
    traces = list(play(agent, environments, [1, 2, 3], task=TAXI, max_steps=60))
    assert sum(len(trace.rewards) for trace in traces) > 100 and illegal == 0


def test_a_task_that_options_change_is_not_compared_with_what_was_measured_in_it() -> None:
    agent = tiny_agent(CARTPOLE)
    plain = rollout(agent, episodes=2, progress=False)
    assert plain.random is not None and plain.normalized is not None
    changed = rollout(agent, episodes=2, progress=False, max_steps=9)
    assert changed.random is changed.expert is changed.normalized is None
