"""Text about pictures, written by an agent: caches, batches and ends change no token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from generalist.acting.agent import Agent
from generalist.acting.rollout import rollout
from generalist.acting.zero_shot import agent_for
from generalist.decoding.sampling import Sampling
from generalist.envs.written import Written
from generalist.errors import UsageError
from generalist.modeling.embedders import Embedded, Embedders, embedders_of
from generalist.tokenization.compact import TASKS, CompactForm, signatures_of
from tests.decoding.models import compact_agent, text_only_processor, tiny_model

TASK, SLOT, SEEN = "caption/Three", 5, 3
SPACES = spaces.MultiDiscrete([9] * SEEN), Written(SLOT)


def writer(form: str, positions: int = 2, window: int = 40, **options: Any) -> Agent:
    """An untrained agent that answers three numbers with a text of up to five tokens."""
    processor = text_only_processor()
    layouts = {TASK: processor.layout(*SPACES)}
    model = tiny_model(window=window, size=processor.vocabulary.size)
    if form == "compact":
        compact = CompactForm(positions=positions, width=8).extended(layouts)
        torch.manual_seed(1)
        model.embedders = Embedders(compact, model.config.hidden_size).eval()
    given = {"sampling": Sampling(0.0), **options}
    return Agent(model, processor, layouts, task=TASK, **given)


def make_ends_likely(agent: Agent, every: int) -> None:
    """Let the embedding of `end` lie near what the model tends to say, so that texts end."""
    end = agent.processor.vocabulary.special("end")
    with torch.no_grad():
        table = agent.model.get_input_embeddings().weight
        table[end] = table[:: max(1, len(table) // every)].mean(dim=0) * 9


@torch.no_grad()
def uncached(agent: Agent, seen: np.ndarray, instruction: str | None) -> list[int]:
    """The likeliest text after the last of (n, 3) numbers, one plain pass over all for each token.

    The texts before are those that the agent wrote.
    """
    processor, layout = agent.processor, agent.layout
    embedders, special = embedders_of(agent.model), agent.processor.vocabulary.special
    first, stop = layout.legal[0]
    ends = layout.parts_of("action")[0].ends
    assert ends is not None
    header = processor.header(TASK, instruction, spelled=embedders is None).tolist()
    written: list[list[int]] = []
    for count in range(1, len(seen) + 1):
        text: list[int] = []
        while len(text) < SLOT:
            ids, places = list(header), []
            for row, before in zip(seen[:count], [*written, text], strict=True):
                places.append(len(ids))
                if embedders is None:
                    ids += [*row.tolist(), special("separator")]
                else:
                    ids += [special("separator")] * embedders.form.positions
                ids += before
            hidden = agent.model.get_input_embeddings()(torch.tensor(ids))
            if embedders is not None:
                number = torch.tensor([[embedders.form.number_of(TASK)]])
                name = signatures_of(layout)[0].name
                given = [
                    Embedded(TASKS, number, torch.tensor([0])),
                    Embedded(name, torch.as_tensor(seen[:count]), torch.tensor(places)),
                ]
                hidden = embedders(hidden, given)
            logits = agent.model(inputs_embeds=hidden[None], use_cache=False).logits[0, -1]
            text.append(first + int(logits[first:stop].argmax()))
            if ends[0] <= text[-1] < ends[1]:
                text += [ends[0]] * (SLOT - len(text))
        written.append(text)
    return written[-1]


@pytest.mark.parametrize("form", ["flat", "compact"])
@pytest.mark.parametrize("plain", [False, True])
def test_greedy_text_is_what_passes_without_a_cache_give(form: str, plain: bool) -> None:
    """Several timesteps, so that what follows a text that has ended is seen as training has it."""
    ended = []
    for every in (2, 40):
        agent = writer(form, plain=plain, window=64)
        make_ends_likely(agent, every)
        numbers = np.random.default_rng(every).integers(9, size=(3, SEEN))
        seen = agent.processor.encode_observations(numbers, agent.layout, TASK)
        agent.begin([0], [0], [{"instruction": "say it"}])
        for step in range(len(numbers)):
            decision = agent.decide(numbers[step][None], [{}], [0])
            expected = uncached(agent, seen[: step + 1], "say it")
            assert decision.ids is not None and decision.ids[0].tolist() == expected
            ended.append(agent.processor.vocabulary.special("pad") in expected)
    assert any(ended) and not all(ended)


@pytest.mark.parametrize("form", ["flat", "compact"])
def test_texts_side_by_side_are_those_of_each_alone(form: str) -> None:
    agent = writer(form, log_probs=True, sampling=Sampling(0.7))
    make_ends_likely(agent, 40)
    numbers = np.random.default_rng(5).integers(9, size=(6, SEEN))
    slots = list(range(6))
    agent.begin(slots, slots, [{}] * 6)
    together = agent.decide(numbers, [{}] * 6, slots)
    assert together.ids is not None and together.log_probs is not None
    alone = writer(form, log_probs=True, sampling=Sampling(0.7))
    make_ends_likely(alone, 40)
    for i in slots:
        alone.begin([0], [i], [{}])
        one = alone.decide(numbers[i][None], [{}], [0])
        alone.end([0])
        assert one.ids is not None and one.log_probs is not None
        assert one.ids[0].tolist() == together.ids[i].tolist()
        np.testing.assert_allclose(one.log_probs[0], together.log_probs[i], atol=1e-4)
    filled = together.ids == agent.processor.vocabulary.special("pad")
    assert (together.log_probs[filled] == 0).all() and (together.log_probs[~filled] < 0).all()


def test_text_takes_no_guidance_and_no_demonstrations() -> None:
    agent = writer("compact", guidance=2.0)
    agent.begin([0], [0], [{}])
    with pytest.raises(UsageError, match="text, which is written without guidance"):
        agent.decide(np.zeros((1, SEEN), int), [{}], [0])
    with pytest.raises(UsageError, match="text, which has no demonstrations"):
        writer("compact").form.header(None, [1] * (agent.layout.tokens_per_timestep + 1))


def test_a_checkpoint_that_knows_no_text_says_so() -> None:
    class Env:
        observation_space, action_space = SPACES

    agent = compact_agent("gym/CartPole-v1")
    with pytest.raises(UsageError, match="has learned to write none. Train one on captions"):
        agent_for(agent, TASK, Env())  # type: ignore[arg-type]


def test_who_never_looks_is_rolled_out_like_any_expert() -> None:
    result = rollout("frequent", "vqa/BabyAI", episodes=40, progress=False)
    assert len(result.statements) == 40 and 0 < result.mean < 0.7
    assert {*result.statements[0]} == {"form", "asked", "truth", "said"}
    assert rollout("truth", "caption/BabyAI", episodes=5, progress=False).mean == 1.0
