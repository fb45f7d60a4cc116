"""Bits per byte: each token once, and the two models it is compared with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.errors import GeneralistError
from generalist.evaluation.text import (
    NO_TARGET,
    ByteTrigram,
    model_bits_per_byte,
    scored_windows,
    xz_bits_per_byte,
)

TRAIN = ["the cat sat on the mat. " * 40, "a dog ate the hat. " * 40]
HELDOUT = ["the dog sat on the cat. " * 5]


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 3), st.integers(8, 64))
def test_windows_score_every_token_once_with_all_or_half_a_window_before_it(count, head, window):
    header = np.arange(1000, 1000 + head)
    tokens = np.arange(count)
    scored = []
    for ids, targets in scored_windows(tokens, header, window):
        assert len(ids) == len(targets) <= window
        np.testing.assert_array_equal(ids[:head], header[: len(ids)])
        for j in np.flatnonzero(targets != NO_TARGET):
            token = int(targets[j])
            scored.append(token)
            seen = ids[head : j + 1]
            np.testing.assert_array_equal(seen, np.arange(token - len(seen), token))
            assert len(seen) == token or len(seen) >= (window - head) // 2
    assert scored == tokens.tolist()


def test_a_window_without_room_is_refused():
    with pytest.raises(GeneralistError, match="no room for text"):
        list(scored_windows(np.arange(5), np.arange(4), 5))


def test_the_trigram_is_a_probability_distribution():
    model = ByteTrigram(TRAIN)
    for context in ("th", "zq", "e "):
        before = model.bits(context)
        total = sum(2 ** -(model.bits(context + chr(c)) - before) for c in range(128))
        # Above 127 a character takes two bytes; its first bytes carry the rest.
        first_bytes = set(chr(c).encode()[0] for c in range(128, 0x800)) | set(range(0xE0, 256))
        continuation = 256 - 128 - len(first_bytes)
        assert total <= 1.0 + 1e-9
        assert total >= 1.0 - (128 + continuation) / 256


def test_the_trigram_knows_the_text_it_was_fitted_on():
    fitted = ByteTrigram(TRAIN).bits_per_byte(HELDOUT)
    assert fitted < 1.5
    assert ByteTrigram(["0123456789" * 50]).bits_per_byte(HELDOUT) > 7
    assert ByteTrigram([]).bits_per_byte(HELDOUT) == pytest.approx(8.0)


def test_the_trigram_agrees_with_witten_bell_by_hand():
    """One document "ab": p(a) at its start backs off twice through contexts seen once."""
    model = ByteTrigram(["ab"])
    unigram = (1 + 2 * (1 / 256)) / (2 + 2)  # n=1, distinct=2, total=2
    bigram = (1 + 1 * unigram) / (1 + 1)  # after a newline came "a", once
    trigram = (1 + 1 * bigram) / (1 + 1)
    assert model.bits("a") == pytest.approx(-math.log2(trigram))


def test_xz_counts_only_what_the_heldout_text_adds():
    assert xz_bits_per_byte(TRAIN, HELDOUT) < 8
    rng = np.random.default_rng(0)
    noise = ["".join(chr(33 + c) for c in rng.integers(0, 64, 4000))]
    assert xz_bits_per_byte(TRAIN, noise) == pytest.approx(6.0, abs=0.6)
    assert xz_bits_per_byte([*TRAIN, *noise], noise) < 1
    with pytest.raises(GeneralistError, match="no text"):
        xz_bits_per_byte(TRAIN, [])


class _Vocabulary(dict):
    pass


class _Range:
    start, stop = 0, 256


class _Bytes:
    """A processor whose tokens are bytes."""

    vocabulary = _Vocabulary(text=_Range)

    def header(self, task, instruction):
        return [256]

    def encode_text(self, text):
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)


class _Model(torch.nn.Module):
    """Logits of a token given the one before it: `table` (257, 256)."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding.from_pretrained(table)
        self.head = torch.nn.Linear(256, 257, bias=False)
        self.head.weight.data = torch.cat([torch.eye(256), torch.full((1, 256), 9.0)])

    def get_decoder(self):
        def run(input_ids, use_cache):
            return type("Output", (), {"last_hidden_state": self.embedding(input_ids)})()

        return run

    def get_output_embeddings(self):
        return self.head


def test_a_model_without_knowledge_needs_8_bits_of_a_byte():
    model = _Model(torch.zeros(257, 256))
    assert model_bits_per_byte(model, _Bytes(), HELDOUT, window_tokens=16) == pytest.approx(8.0)


@pytest.mark.parametrize("window", [8, 50, 10_000])
def test_a_bigram_model_gets_its_own_bits_whatever_the_window(window):
    table = torch.randn(257, 256, generator=torch.Generator().manual_seed(0))
    documents = [*HELDOUT, "x", "two words"]
    log_p = torch.log_softmax(table, -1) / math.log(2)
    bits = size = 0
    for text in documents:
        ids = [256, *text.encode()]
        bits -= sum(log_p[a, b].item() for a, b in zip(ids, ids[1:], strict=False))
        size += len(text.encode())
    found = model_bits_per_byte(_Model(table), _Bytes(), documents, window_tokens=window)
    assert found == pytest.approx(bits / size, rel=1e-5)
