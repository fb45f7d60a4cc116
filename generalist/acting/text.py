"""Generate text with the decoder that acts, restricted to the ids of text and to `end`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from generalist.decoding.sampling import Choice, Interval, Sampling
from generalist.errors import UsageError
from generalist.vocabulary import Vocabulary

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

DOCUMENTS = "text/"  # the header of this family's tasks is `begin` alone
_CHUNK_TOKENS = 64  # pieces of a long prompt; a full window keeps the latest ones
_LONGEST_CHARACTER_TOKENS = 4  # one byte a token
_UNFINISHED = "\ufffd"  # an incomplete UTF-8 sequence decodes to this


def stream_text(
    agent: Agent,
    prompt: str,
    *,
    max_tokens: int = 200,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
) -> Iterator[str]:
    """Generate the continuation of `prompt` piece by piece.

    The text ends where the model generates `end`, or after `max_tokens`. Each token takes one
    forward pass and is a timestep of its own. So the text may exceed the window, and the model
    sees at least the latest half window of it.

    Args:
        agent: its model generates the text.
        prompt: text to continue; may be empty.
        max_tokens: largest number of generated tokens, at least 1.
        temperature: sampling temperature; 0 is greedy.
        top_p: probability mass of nucleus sampling.
        seed: seed of the sampling.

    Yields:
        Strings of whole characters.

    Raises:
        UsageError: `max_tokens`, `temperature` or `top_p` is out of range.
    """
    if max_tokens < 1:
        raise UsageError(f"max_tokens must be at least 1, got {max_tokens}.")
    sampling = Sampling(temperature, top_p)
    processor = agent.processor
    interval, mask = _text_or_end(processor.vocabulary)
    end = processor.vocabulary.special("end")
    choice = Choice(interval=interval, mask=mask, sampling=sampling)
    decoder = agent.new_decoder(1)
    decoder.reset(0, processor.header(DOCUMENTS).tolist(), seed)
    ids = processor.encode_text(prompt).tolist()
    size = min(_CHUNK_TOKENS, decoder.window_tokens // 4)
    for start in range(0, len(ids), size):
        hidden = decoder.feed([0], [ids[start : start + size]], [1])
    if not ids:
        hidden = decoder.feed([0], [[]], [1])
    pending: list[int] = []
    for count in range(1, max_tokens + 1):
        pending += decoder.choose([0], hidden, [choice])
        last = count == max_tokens or pending[-1] == end
        text = processor.decode_text(np.array([token for token in pending if token != end]))
        if last or not text.endswith(_UNFINISHED) or len(pending) > _LONGEST_CHARACTER_TOKENS:
            yield text
            pending = []
        if last:
            return
        hidden = decoder.feed([0], [[]], [1])


def _text_or_end(vocabulary: Vocabulary) -> tuple[Interval, np.ndarray]:
    """An interval of V ids, and a (V,) bool mask of those that are text or `end`."""
    text, end = vocabulary["text"], vocabulary.special("end")
    start, stop = min(text.start, end), max(text.stop, end + 1)
    ids = np.arange(start, stop)
    return (start, stop), (text.start <= ids) & (ids < text.stop) | (ids == end)


def generate_text(
    agent: Agent,
    prompt: str,
    *,
    max_tokens: int = 200,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
) -> str:
    """The continuation of `prompt`, without the prompt, in one piece; see `stream_text`."""
    pieces = stream_text(
        agent, prompt, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed
    )
    return "".join(pieces)
