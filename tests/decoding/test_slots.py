"""Ctrl-C at any line of a timestep: it has happened in all slots or in none, and all goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.decoding.decoder import Decoder
from generalist.decoding.sampling import Choice, Sampling
from generalist.errors import GeneralistError
from tests.decoding.models import VOCABULARY_SIZE, tiny_model

EVERYTHING = (0, VOCABULARY_SIZE)
CHOICE = Choice(interval=EVERYTHING, sampling=Sampling(1.0))
MODEL = tiny_model(window=48)
SLOTS, ACTION_TOKENS = [0, 1, 2], 3


def lines_of(call: Callable[[], Any], stop_at: int | None = None) -> int:
    """Lines of `generalist.decoding` that a call runs; KeyboardInterrupt before line `stop_at`."""
    lines = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal lines
        if "generalist/decoding" not in frame.f_code.co_filename:
            return None
        if event == "line":
            if lines == stop_at:
                sys.settrace(None)
                raise KeyboardInterrupt
            lines += 1
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return lines


def new_decoder(plain: bool, padded: bool) -> Decoder:
    decoder = Decoder(MODEL, len(SLOTS), backlog_tokens=8, plain=plain, padded=padded)
    for slot in SLOTS:
        decoder.reset(slot, list(range(1 + slot)), seed=slot)
    return decoder


def timestep(decoder: Decoder, step: int) -> list[list[int]]:
    chunks = [[(7 * step + slot) % VOCABULARY_SIZE, 3, slot] for slot in SLOTS]
    choices = [[CHOICE] * ACTION_TOKENS] * len(SLOTS)
    return decoder.act(SLOTS, chunks, choices).ids


def contexts(decoder: Decoder) -> list[list[int]]:
    return [decoder.context(slot).tolist() for slot in SLOTS]


@settings(max_examples=25, deadline=None)
@given(
    moment=st.floats(0, 1, exclude_max=True),
    step=st.integers(0, 14),
    plain=st.booleans(),
    padded=st.booleans(),
)
def test_an_interrupted_timestep_may_be_repeated(
    moment: float, step: int, plain: bool, padded: bool
) -> None:
    """At any line, in the first pass or later, before and after the window (48 tokens) fills."""
    whole, cut = new_decoder(plain, padded), new_decoder(plain, padded)
    for before in range(step):
        assert timestep(whole, before) == timestep(cut, before)
    start = contexts(cut)
    lines = lines_of(lambda: timestep(whole, step))
    with pytest.raises(KeyboardInterrupt):
        lines_of(lambda: timestep(cut, step), int(moment * lines))
    after = contexts(cut)
    if after != contexts(whole):
        # Nothing has happened, but that a window may have turned over, as it would have anyway.
        for slot, (now, then) in enumerate(zip(after, start, strict=True)):
            body = now[1 + slot :]
            assert now[: 1 + slot] == then[: 1 + slot]
            assert body == then[len(then) - len(body) :]
        timestep(cut, step)
    assert contexts(cut) == contexts(whole)
    for later in range(step + 1, step + 12):
        assert timestep(whole, later) == timestep(cut, later)


@pytest.mark.parametrize("position", range(ACTION_TOKENS))
def test_a_pass_that_fails_leaves_no_trace(position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = new_decoder(False, False), new_decoder(False, False)
    run, passes = Decoder._forward, 0

    def failing(self: Decoder, *given: Any, **named: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes == position + 1:
            raise KeyboardInterrupt
        return run(self, *given, **named)

    monkeypatch.setattr(Decoder, "_forward", failing)
    with pytest.raises(KeyboardInterrupt):
        timestep(cut, 0)
    monkeypatch.undo()
    for step in range(20):
        assert timestep(cut, step) == timestep(whole, step)


def test_a_refused_mask_leaves_no_trace() -> None:
    whole, cut = new_decoder(False, False), new_decoder(False, False)
    nothing = Choice(interval=EVERYTHING, mask=np.zeros(VOCABULARY_SIZE, bool))
    for step in range(10):
        with pytest.raises(GeneralistError, match="excludes all"):
            cut.act(SLOTS, [[9]] * 3, [[nothing]] * 3)
        assert timestep(cut, step) == timestep(whole, step)
