"""Text generation stays in the text range, repeats, and goes on beyond the window."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from generalist.acting.agent import Agent
from generalist.acting.text import generate_text, stream_text
from generalist.errors import UsageError
from tests.decoding.models import full_logits, tiny_agent

AGENT = tiny_agent("gym/CartPole-v1", window=64)


def test_greedy_text_is_what_full_forward_passes_choose() -> None:
    processor = AGENT.processor
    context = [*processor.header("text/"), *processor.encode_text("def f(")]
    size, end = processor.vocabulary["text"].size, processor.vocabulary.special("end")
    for _ in range(12):
        logits = full_logits(AGENT.model, np.array(context))
        context.append(int(logits[:size].argmax()))
        assert logits[end] < logits[context[-1]], "the model would have ended here"
    expected = processor.decode_text(context[-12:])
    assert generate_text(AGENT, "def f(", max_tokens=12, temperature=0) == expected


@pytest.mark.parametrize("prompt", ["", "x", "a long prompt, " * 40])
def test_any_prompt_is_read_and_the_window_may_be_exceeded(prompt: str) -> None:
    text = generate_text(AGENT, prompt, max_tokens=80, temperature=1.0, seed=3)
    assert text == generate_text(AGENT, prompt, max_tokens=80, temperature=1.0, seed=3)
    assert text[:20] != generate_text(AGENT, prompt, max_tokens=20, temperature=1.0, seed=4)[:20]


def test_pieces_are_whole_characters_and_together_the_text() -> None:
    pieces = list(stream_text(AGENT, "é", max_tokens=60, temperature=1.0, seed=1))
    assert "".join(pieces) == generate_text(AGENT, "é", max_tokens=60, temperature=1.0, seed=1)


def test_nonsense_is_refused() -> None:
    with pytest.raises(UsageError, match="max_tokens"):
        generate_text(AGENT, "x", max_tokens=0)
    with pytest.raises(UsageError, match="top_p"):
        generate_text(AGENT, "x", top_p=2)


def agent_that_ends(soon: bool) -> Agent:
    """Wherever it stands, `end` is likely for the one and unlikely for the other."""
    agent = tiny_agent("gym/CartPole-v1", window=64)
    model = copy.deepcopy(agent.model)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[:, 0] = 3.0
        table[agent.processor.vocabulary.special("end"), 0] = 300.0 if soon else 3.0
    return Agent(model, agent.processor, agent.layouts, sampling=agent.sampling)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_document_ends_where_the_model_writes_end(temperature: float) -> None:
    ends, goes_on = agent_that_ends(True), agent_that_ends(False)
    assert generate_text(ends, "once", max_tokens=30, temperature=temperature) == ""
    passes = [
        list(stream_text(each, "once", max_tokens=30, temperature=temperature))
        for each in (ends, goes_on)
    ]
    assert passes[0] == [""] and len("".join(passes[1])) > 10


def test_generate_stops_at_end_as_the_checkpoint_says(tmp_path: Path) -> None:
    """Plain transformers, from a folder that training or an agent has written."""
    for name, soon in (("ends", True), ("goes_on", False)):
        agent = agent_that_ends(soon)
        agent.save_pretrained(tmp_path / name)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        end = agent.processor.vocabulary.special("end")
        assert model.generation_config.eos_token_id == end
        ids = torch.tensor([[*agent.processor.header("text/"), 70, 71]])
        written = model.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :]
        assert (written == end).sum() == soon
        assert written[-1] == end if soon else len(written) == 20
