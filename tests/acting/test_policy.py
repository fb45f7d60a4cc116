"""The agent as a Policy: begin, decide and end are what act is made of."""

from __future__ import annotations

import numpy as np
import pytest

import generalist
from generalist.decoding.sampling import Sampling
from generalist.errors import GeneralistError
from generalist.policy import Decision, Policy
from tests.decoding.models import full_logits, tiny_agent

PENDULUM, BOARD = "gym/Pendulum-v1", "board/TicTacToe"


def policy_of(task: str, temperature: float = 1.0) -> Policy:
    """Typed as what it is to be."""
    return tiny_agent(task, sampling=Sampling(temperature), log_probs=True)


def states(task: str, count: int) -> np.ndarray:
    env = generalist.make(task)
    env.observation_space.seed(0)
    return np.stack([np.clip(env.observation_space.sample(), -5, 5) for _ in range(count)])


def test_a_decision_says_what_was_chosen_and_how_probable_it_was() -> None:
    agent = policy_of(PENDULUM)
    agent.begin([0, 1], [5, 6], [{}, {}])
    decision = agent.decide(states(PENDULUM, 2), [{}, {}], [0, 1])
    assert isinstance(decision, Decision) and decision.values is None
    tokens = len(agent.layout.legal)
    assert decision.actions.shape == (2, 1) and decision.actions.dtype == np.float32
    assert decision.ids.shape == (2, tokens) and decision.ids.dtype == np.int64
    assert decision.log_probs.shape == (2, tokens) and decision.log_probs.dtype == np.float32
    decoded = agent.processor.decode_actions(decision.ids, agent.layout)
    np.testing.assert_array_equal(decoded, decision.actions)
    (start, stop), factor = agent.layout.legal[0], agent.sampling.ordinal_factor
    for slot in range(2):
        context = agent._running.decoder.context(slot)
        logits = full_logits(agent.model, context[:-tokens])[start:stop] / factor
        expected = logits.log_softmax(-1)[decision.ids[slot, 0] - start]
        assert decision.log_probs[slot, 0] == pytest.approx(float(expected), abs=1e-3)


def test_log_probs_are_left_out_unless_asked_for() -> None:
    agent = tiny_agent(PENDULUM)
    agent.begin([0], [0], [{}])
    assert agent.decide(states(PENDULUM, 1), [{}], [0]).log_probs is None


def test_log_probs_change_no_action_and_are_zero_where_nothing_is_drawn() -> None:
    for temperature in (0.0, 1.0):
        asked, other = policy_of(BOARD, temperature), tiny_agent(BOARD, temperature=temperature)
        env = generalist.make(BOARD)
        observation, info = env.reset(seed=0)
        for agent in (asked, other):
            agent.begin([0], [7], [info])
        done = False
        while not done:
            given = observation[None], [info], [0]
            decision = asked.decide(*given)
            assert decision.actions[0] == other.decide(*given).actions[0]
            assert info["action_mask"][decision.actions[0]]
            if temperature == 0:
                assert (decision.log_probs == 0).all()
            observation, _, done, _, info = env.step(decision.actions[0])


def test_act_is_begin_and_decide() -> None:
    policy, short = policy_of(PENDULUM), tiny_agent(PENDULUM, sampling=Sampling(1.0))
    observations = states(PENDULUM, 40).reshape(20, 2, -1)
    for step, batch in enumerate(observations):
        first = np.array([step % 7 == 0, step % 5 == 0])
        seeds = [step, 100 + step]
        for slot in np.flatnonzero(first).tolist():  # one at a time
            policy.begin([slot], [seeds[slot]], [{}])
        decision = policy.decide(batch, [{}, {}], [0, 1])
        np.testing.assert_array_equal(decision.actions, short.act(batch, first, seeds=seeds))


def test_episodes_begin_one_by_one_end_and_leave_their_slots() -> None:
    agent = policy_of(PENDULUM)
    for slot in range(3):
        agent.begin([slot], [slot], [{"instruction": f"number {slot}"}])
    batch = states(PENDULUM, 3)
    agent.decide(batch, [{}] * 3, [0, 1, 2])
    agent.end([1])
    agent.end([1])  # already
    agent.decide(batch[:2], [{}] * 2, [2, 0])
    with pytest.raises(GeneralistError, match="1 has not begun"):
        agent.decide(batch[:1], [{}], [1])
    agent.begin([1], [9], [{}])
    agent.decide(batch, [{}] * 3, [0, 1, 2])
    with pytest.raises(GeneralistError, match="2 observations for 3"):
        agent.decide(batch[:2], [{}] * 3, [0, 1, 2])
    agent.end([0, 1, 2])
    agent.begin([5], [0], [{}])  # more slots than before, none of which is in use
    agent.decide(batch[:1], [{}], [5])


def test_an_instruction_is_read_where_the_episode_begins() -> None:
    agent = policy_of(PENDULUM)
    agent.begin([0], [0], [{"instruction": "swing up"}])
    agent.decide(states(PENDULUM, 1), [{"instruction": "ignored"}], [0])
    header = agent.processor.header(PENDULUM, "swing up").tolist()
    context = agent._running.decoder.context(0).tolist()
    assert context[: len(header)] == header
