"""Text generation stays in the text range, repeats, and goes on beyond the window."""

from __future__ import annotations

import numpy as np
import pytest

from generalist.acting.text import generate_text, stream_text
from generalist.errors import UsageError
from tests.decoding.models import full_logits, tiny_agent

AGENT = tiny_agent("gym/CartPole-v1", window=64)


def test_greedy_text_is_what_full_forward_passes_choose() -> None:
    processor = AGENT.processor
    context = [*processor.header("text/"), *processor.encode_text("def f(")]
    size = processor.vocabulary["text"].size
    for _ in range(12):
        context.append(int(full_logits(AGENT.model, np.array(context))[:size].argmax()))
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
