"""Instructions while an agent acts: changed in mid-episode, and weighed against none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import generalist
from generalist.acting.agent import Agent
from generalist.errors import UsageError
from generalist.session import Session
from tests.acting.test_forms import log_probs, observations_of, uncached
from tests.decoding.models import compact_agent, full_logits, tiny_agent

PENDULUM, LUNAR = "gym/Pendulum-v1", "gym/LunarLanderContinuous-v3"
TOLD = ("go", "stop at the red door", "turn left, then go to the blue box")


def context_steps(agent: Agent, instruction: str, slot: int = 0) -> int:
    """Timesteps in the context of a slot, whose header has to be that of the instruction."""
    context = agent._running.decoder.context(slot).tolist()
    header = agent.header(instruction).ids
    assert context[: len(header)] == header
    steps, rest = divmod(len(context) - len(header), agent.form.positions)
    assert rest == 0
    return steps


@settings(max_examples=12, deadline=None)
@given(
    changes=st.dictionaries(st.integers(1, 24), st.sampled_from(TOLD), max_size=4),
    plain=st.booleans(),
    window=st.sampled_from([40, 64]),
)
def test_a_new_instruction_in_mid_episode_is_what_one_pass_with_it_gives(
    changes: dict[int, str], plain: bool, window: int
) -> None:
    agent = compact_agent(LUNAR, plain=plain, window=window, context_steps=6, log_probs=True)
    observed = observations_of(LUNAR, 25)
    seen = agent.processor.encode_observations(observed, agent.layout, LUNAR)
    told = TOLD[0]
    agent.begin([0], [3], [{"instruction": told}])
    for step in range(len(observed)):
        info = {}
        if step in changes:
            told = changes[step]
            info = {"new_instruction": told}
        decision = agent.decide(observed[step][None], [info], [0])
        steps = context_steps(agent, told)
        assert steps >= min(step + 1, 3), "the recent timesteps are kept"
        states = uncached(agent, seen[step + 1 - steps : step + 1], told)
        expected = log_probs(agent, states, decision.ids[0])
        np.testing.assert_allclose(decision.log_probs[0], expected, atol=1e-4)


def test_a_new_instruction_in_the_flat_form_is_what_one_pass_with_it_gives() -> None:
    agent = tiny_agent(PENDULUM, window=128)
    agent.set_temperature(0.0)
    agent.begin([0], [0], [{"instruction": TOLD[0]}])
    decoder, processor = None, agent.processor
    for step, observation in enumerate(observations_of(PENDULUM, 12)):
        info = {"new_instruction": TOLD[1]} if step == 7 else {}
        decision = agent.decide(observation[None], [info], [0])
        decoder = agent._running.decoder
        context = decoder.context(0)
        start, stop = agent.layout.legal[0]
        logits = full_logits(agent.model, context[:-1])[start:stop]
        assert decision.ids[0, 0] == start + int(logits.argmax())
    header = processor.header(PENDULUM, TOLD[1]).tolist()
    assert context[: len(header)].tolist() == header
    assert len(context) > len(header) + 5 * agent.layout.tokens_per_timestep


def test_a_session_tells_its_policy() -> None:
    agent = compact_agent(PENDULUM, context_steps=4)
    session = Session(generalist.make(PENDULUM), agent, task=PENDULUM, seed=0, instruction=TOLD[0])
    session.step()
    session.instruct(TOLD[2])
    session.step()
    assert context_steps(agent, TOLD[2]) == 2
    assert session.trace.instruction == TOLD[2]


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_goes_from_the_logits_without_instruction_beyond_those_with_it(
    guidance: float,
) -> None:
    agent = compact_agent(LUNAR, context_steps=3, guidance=guidance, log_probs=True)
    observed = np.stack([observations_of(LUNAR, 8, seed) for seed in (0, 1)])  # (2, T, ...)
    agent.begin([0, 1], [3, 4], [{"instruction": TOLD[1]}, {"instruction": TOLD[2]}])
    for step in range(8):
        decision = agent.decide(observed[:, step], [{}, {}], [0, 1])
        for slot, told in enumerate(TOLD[1:]):
            steps = context_steps(agent, told, 2 * slot)
            past = observed[slot, step + 1 - steps : step + 1]
            seen = agent.processor.encode_observations(past, agent.layout, LUNAR)
            own, none = uncached(agent, seen, told), uncached(agent, seen, None)
            mixed = log_probs(agent, none + guidance * (own - none), decision.ids[slot])
            np.testing.assert_allclose(decision.log_probs[slot], mixed, atol=1e-4)


def test_guidance_by_one_acts_as_without_it() -> None:
    seen = observations_of(LUNAR, 6)
    actions = []
    for guidance in (None, 1.0):
        agent = compact_agent(LUNAR, guidance=guidance)
        agent.begin([0], [3], [{"instruction": TOLD[1]}])
        actions.append([agent.decide(each[None], [{}], [0]).ids for each in seen])
    np.testing.assert_array_equal(*actions)


def test_guidance_is_a_finite_number() -> None:
    agent = compact_agent(LUNAR, guidance=float("nan"))
    with pytest.raises(UsageError, match="Guidance must be a finite number, got nan"):
        agent.act(observations_of(LUNAR, 1)[0])


def test_guidance_needs_the_compact_form() -> None:
    agent = tiny_agent(PENDULUM, guidance=2.0)
    with pytest.raises(UsageError, match="compact form"):
        agent.act(observations_of(PENDULUM, 1)[0])
