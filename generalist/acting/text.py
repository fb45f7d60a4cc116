"""Text from the same decoder: prompts read on, restricted to the ids of text and to `end`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from generalist.decoding.sampling import Choice, Interval, Sampling
from generalist.errors import UsageError
from generalist.vocabulary import Vocabulary

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

DOCUMENTS = "text/"  # tasks of this family have `begin` alone as their header
_CHUNK_TOKENS = 64  # a long prompt is read in pieces, so that a full window keeps its latest part
_LONGEST_CHARACTER_TOKENS = 4  # one byte a token
_UNFINISHED = "\ufffd"  # what a cut-off UTF-8 sequence decodes to


def stream_text(
    agent: Agent,
    prompt: str,
    *,
    max_tokens: int = 200,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
) -> Iterator[str]:
    """Yield the continuation of `prompt` piece by piece, each a str of whole characters.

    It ends with the document, where the model writes `end`, or after `max_tokens`. One forward
    pass a token; every token is a timestep of its own, so the text may go on beyond the window,
    of which the latest half at least stays in view.
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
    """An interval of V ids, and (V,) bool which of them are text or `end`."""
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
    """The continuation of `prompt`, without it; `stream_text` in one piece."""
    pieces = stream_text(
        agent, prompt, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed
    )
    return "".join(pieces)
