"""Acting in the compact form: what is cached, batched and cut off changes no choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import generalist
from generalist.acting.agent import Agent
from generalist.acting.rollout import rollout
from generalist.errors import UsageError
from generalist.experts import random_episode
from generalist.modeling.embedders import Embedded, embedders_of
from generalist.tokenization.compact import QUERIES, TASKS, signatures_of
from generalist.tokenization.layout import Layout
from tests.decoding.models import compact_agent

CARTPOLE, PENDULUM, LUNAR = "gym/CartPole-v1", "gym/Pendulum-v1", "gym/LunarLanderContinuous-v3"
BOARD = "board/TicTacToe"


def observations_of(task: str, count: int, seed: int = 0) -> np.ndarray:
    env = generalist.make(task)
    env.observation_space.seed(seed)
    return np.stack([np.clip(env.observation_space.sample(), -3, 3) for _ in range(count)])


@torch.no_grad()
def uncached(agent: Agent, seen: np.ndarray, instruction: str | None = None) -> torch.Tensor:
    """(k, E) states of the last of (n, K) observed ids, by one plain pass over all of them."""
    embedders, layout, processor = embedders_of(agent.model), agent.layout, agent.processor
    header = processor.header(agent.task, instruction, spelled=False).tolist()
    size, k, count = agent.form.positions, len(layout.legal), len(seen)
    ids = header + [processor.vocabulary.special("separator")] * (size * count)
    places = len(header) + size * torch.arange(count)
    number = embedders.form.number_of(agent.task)
    given = [
        Embedded(TASKS, torch.tensor([[number]]), torch.tensor([0])),
        Embedded(signatures_of(layout)[0].name, torch.as_tensor(seen), places),
    ]
    if k > 1:
        asked = (places + size - k + 1)[:, None] + torch.arange(k - 1)
        numbers = torch.arange(k - 1).repeat(count)[:, None]
        given.append(Embedded(QUERIES, numbers, asked.flatten()))
    hidden = agent.model.get_input_embeddings()(torch.tensor(ids))
    hidden = embedders(hidden, given)[None]
    return agent.model.base_model(inputs_embeds=hidden, use_cache=False).last_hidden_state[0, -k:]


def log_probs(agent: Agent, states: torch.Tensor, ids: np.ndarray) -> list[float]:
    found = []
    head = agent.model.get_output_embeddings().weight
    for state, token, choice in zip(states, ids.tolist(), agent._choices, strict=True):
        start, stop = choice.interval
        factor = agent.sampling.temperature
        factor *= agent.sampling.ordinal_factor if choice.ordinal else 1
        logits = (head[start:stop] @ state / factor).log_softmax(-1)
        found.append(logits[token - start].item())
    return found


@pytest.mark.parametrize("task", [CARTPOLE, PENDULUM, LUNAR])
@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("plain", [False, True])
def test_what_is_cached_is_what_one_pass_over_the_context_gives(
    task: str, positions: int, plain: bool
) -> None:
    """Long enough for the window to turn over several times; the context is then cut."""
    agent = compact_agent(task, positions=positions, plain=plain, window=32, log_probs=True)
    observed = observations_of(task, 60)
    seen = agent.processor.encode_observations(observed, agent.layout, task)
    agent.begin([0], [3], [{"instruction": "go"}])
    lengths = set()
    for step in range(len(observed)):
        decision = agent.decide(observed[step][None], [{}], [0])
        head = len(agent.header("go").ids)
        context = len(agent._running.decoder.context(0)) - head
        steps, rest = divmod(context, agent.form.positions)
        assert rest == 0 and context + head <= 32
        lengths.add(steps)
        states = uncached(agent, seen[step + 1 - steps : step + 1], "go")
        expected = log_probs(agent, states, decision.ids[0])
        np.testing.assert_allclose(decision.log_probs[0], expected, atol=2e-4)
    assert len(lengths) > 2, "the window has turned over"


@pytest.mark.parametrize("task", [CARTPOLE, LUNAR])
def test_it_takes_one_forward_pass(task: str) -> None:
    agent = compact_agent(task)
    for step, observation in enumerate(observations_of(task, 5)):
        agent.act(observation, first=step == 0)
    assert agent._running.decoder.forward_passes == 5


def test_slots_do_not_know_of_each_other() -> None:
    """Episodes that begin at different times, in a batch and alone."""
    together, alone = compact_agent(LUNAR, window=32), compact_agent(LUNAR, window=32)
    observed = observations_of(LUNAR, 90).reshape(30, 3, -1)
    chosen = [[], [], []]
    for step, batch in enumerate(observed):
        first = np.array([step % 11 == 0, step % 7 == 0, step == 0])
        actions = together.act(batch, first, seeds=[step, 50 + step, 90])
        for slot in range(3):
            chosen[slot].append(actions[slot])
    for slot, every in enumerate((11, 7, 1000)):
        for step, batch in enumerate(observed):
            first = step % every == 0
            action = alone.act(batch[slot], first, seeds=[step + (0, 50, 90)[slot]])
            np.testing.assert_array_equal(action, chosen[slot][step])


def test_an_interrupted_decision_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised at each operation in turn, among them in the pass that turns the window over."""
    agent, other = (compact_agent(LUNAR, window=24, backlog_tokens=4) for _ in range(2))
    observed = observations_of(LUNAR, 12)
    for each in (agent, other):
        each.begin([0], [1], [{}])
    decoder = None
    for observation in observed:
        expected = other.decide(observation[None], [{}], [0]).ids
        for _ in range(2):
            decoder = agent._running.decoder
            if decoder is None:
                break
            with monkeypatch.context() as patched:
                patched.setattr(decoder, "_choose", _raise)
                with pytest.raises(KeyboardInterrupt):
                    agent.decide(observation[None], [{}], [0])
        assert (agent.decide(observation[None], [{}], [0]).ids == expected).all()


def _raise(*given: Any, **named: Any) -> None:
    raise KeyboardInterrupt


def test_masks_are_obeyed() -> None:
    assert rollout(compact_agent(BOARD), episodes=4, progress=False).episodes == 4


def test_a_demonstration_costs_as_many_positions_as_it_has_observations() -> None:
    agent = compact_agent(PENDULUM, window=64, log_probs=True)
    env = generalist.make(PENDULUM)
    shown = random_episode(env, PENDULUM, 0)
    without = agent.header()
    agent.set_prompts([shown])
    header = agent.header()
    steps = 64 // 4 - 1
    assert len(header.ids) == len(without.ids) + steps + 1
    vectors = header.added[1].vectors
    assert header.added[1].place == len(without.ids) and vectors.shape == (steps, 32)
    layout: Layout = agent.layout
    stored = agent.processor.encode(shown, layout).reshape(-1, layout.tokens_per_timestep)
    observation, action = (each.name for each in signatures_of(layout))
    embedders = embedders_of(agent.model)
    last = torch.as_tensor(stored[-1:].astype(np.int64))
    with torch.no_grad():
        expected = embedders.vectors(observation, last[:, :3]) + embedders.vectors(
            action, last[:, -1:]
        )
    torch.testing.assert_close(vectors[-1:], expected[0])
    said = []
    for prompts in ([shown], []):  # what is demonstrated is heard
        agent.set_prompts(prompts)
        agent.begin([0], [0], [{}])
        for observation in observations_of(PENDULUM, 40):
            decision = agent.decide(observation[None], [{}], [0])
            said.append(decision.log_probs.item())
    assert not np.allclose(said[:40], said[40:], atol=1e-3)


def test_kinds_of_observations_without_an_embedder_are_refused() -> None:
    agent = compact_agent(CARTPOLE)
    env = generalist.make(PENDULUM)
    layout = agent.processor.layout(env.observation_space, env.action_space, task=PENDULUM)
    with pytest.raises(UsageError, match="no embedder.*observation-bins4x.*Fine-tune"):
        agent.for_task(PENDULUM, layout)
