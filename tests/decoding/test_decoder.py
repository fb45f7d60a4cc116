"""The cached decoder equals a full forward pass over the context it says it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.decoding.decoder import Decoder
from generalist.decoding.lean import LeanPass
from generalist.decoding.plain import PlainPass
from generalist.decoding.sampling import Choice, Mask, Sampling
from generalist.errors import GeneralistError
from tests.decoding.models import VOCABULARY_SIZE, full_logits, tiny_model

TOLERANCE = 1e-4
EVERYTHING = (0, VOCABULARY_SIZE)
ANY = Choice(interval=EVERYTHING)
WINDOW = 64
MODELS = {name: tiny_model(name, WINDOW) for name in ("qwen3", "llama")}


def some_ids(rng: np.random.Generator, count: int) -> list[int]:
    return rng.integers(0, VOCABULARY_SIZE, count).tolist()


def check(decoder: Decoder, model: object, slots: list[int], hidden: torch.Tensor) -> None:
    """The logits from `hidden` are those of plain full forward passes over the contexts."""
    logits = decoder.logits(hidden, EVERYTHING)
    for slot, row in zip(slots, logits, strict=True):
        expected = full_logits(model, decoder.context(slot))
        torch.testing.assert_close(row, expected, atol=TOLERANCE, rtol=0)


def run(
    decoder: Decoder,
    model: object,
    steps: int,
    observation: int,
    action: int,
    reset_chance: float = 0.0,
    seed: int = 0,
) -> None:
    """Feed random timesteps to all slots; check a prediction of each slot in each of them."""
    rng = np.random.default_rng(seed)
    slots = list(range(len(decoder)))
    for slot in slots:
        decoder.reset(slot, some_ids(rng, 1 + slot))
    for _ in range(steps):
        for slot in slots:
            if rng.random() < reset_chance:
                decoder.reset(slot, some_ids(rng, int(rng.integers(1, 12))))
        chunks = [some_ids(rng, observation) for _ in slots]
        hidden = decoder.feed(slots, chunks, [action] * len(slots))
        checked = rng.integers(action)
        for position in range(action):
            if position:
                hidden = decoder.advance(slots)
            if position == checked:
                check(decoder, model, slots, hidden)
            decoder.choose(slots, hidden, [ANY] * len(slots))


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize(("slots", "reset_chance"), [(1, 0.0), (8, 0.1)])
def test_cached_equals_uncached(
    architecture: str, padded: bool, lean: bool, slots: int, reset_chance: float
) -> None:
    """Before and after the window (64 tokens, 7 a timestep) fills, alone and as a ragged batch."""
    decoder = Decoder(MODELS[architecture], slots, backlog_tokens=16, plain=not lean, padded=padded)
    assert isinstance(decoder.forward, LeanPass if lean else PlainPass)
    run(decoder, MODELS[architecture], 20, observation=5, action=2, reset_chance=reset_chance)


@settings(max_examples=15, deadline=None)
@given(
    slots=st.integers(1, 3),
    observation=st.integers(1, 12),
    action=st.integers(1, 4),
    window=st.integers(32, 64),
    keep=st.floats(0.05, 0.5),
    backlog=st.sampled_from([1, 7, 30, None]),
    body=st.sampled_from([None, 16, 40]),
    reset_chance=st.sampled_from([0.0, 0.05, 0.3]),
    padded=st.booleans(),
    lean=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_pattern_of_resets_and_lengths_is_exact(
    slots: int,
    observation: int,
    action: int,
    window: int,
    keep: float,
    backlog: int | None,
    body: int | None,
    reset_chance: float,
    padded: bool,
    lean: bool,
    seed: int,
) -> None:
    decoder = Decoder(
        MODELS["qwen3"], slots, window, keep=keep, backlog_tokens=backlog, body_tokens=body,
        plain=not lean, padded=padded,
    )  # fmt: skip
    run(decoder, MODELS["qwen3"], 14, observation, action, reset_chance, seed)


def kept_timesteps(
    decoder: Decoder, header: list[int], observation: int, action: int, steps: int
) -> list[int]:
    """Act; after each step the context is the header and so many of the latest timesteps."""
    decoder.reset(0, header)
    rng = np.random.default_rng(0)
    history: list[int] = []
    found = []
    for _ in range(steps):
        chunk = some_ids(rng, observation)
        ids = decoder.act([0], [chunk], [[ANY] * action]).ids[0]
        history += [*chunk, *ids]
        context = decoder.context(0).tolist()
        kept = len(context) - len(header)
        assert context == header + history[len(history) - kept :]
        assert kept % (observation + action) == 0
        found.append(kept // (observation + action))
    return found


def test_context_is_the_header_and_the_latest_whole_timesteps() -> None:
    """Within [about half, whole] window, starting at a timestep boundary, header first."""
    header, observation, action = [1, 2, 3], 5, 2
    decoder = Decoder(MODELS["qwen3"], 1, backlog_tokens=1)
    kept = kept_timesteps(decoder, header, observation, action, 60)
    lengths = [len(header) + steps * (observation + action) for steps in kept]
    assert max(lengths) <= WINDOW and max(lengths) > WINDOW - (observation + action)
    assert min(lengths[8:]) >= WINDOW / 2 - (observation + action)
    assert len(set(lengths[20:])) > 1, "the window never turned over"


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_limit_on_the_body_keeps_the_latest_timesteps(steps: int) -> None:
    """Whatever the header's length; of two timesteps both are always there."""
    decoder = Decoder(MODELS["qwen3"], 1, body_tokens=steps * 4)
    seen = kept_timesteps(decoder, list(range(1, 30)), 3, 1, 20)
    assert max(seen) == steps
    assert min(seen[steps:]) == steps // 2 + 1


@pytest.mark.parametrize("backlog", [1, 16, None])
def test_header_keys_are_copied_not_recomputed(backlog: int | None) -> None:
    """A demonstration in the header is fed once a reset, whatever turnovers follow."""
    model, header = MODELS["qwen3"], list(range(20))
    # The model's own forward pass can be watched.
    decoder = Decoder(model, 1, backlog_tokens=backlog, plain=True)
    fed = 0

    def count(_: object, args: tuple, kwargs: dict) -> None:
        nonlocal fed
        fed += kwargs["position_ids"].numel()

    hook = model.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        decoder.reset(0, header)
        steps, observation = 80, 4
        for _ in range(steps):
            decoder.act([0], [[7] * observation], [[ANY]])
    finally:
        hook.remove()
    once_by_each_row = 2 * steps * (observation + 1)
    assert fed <= len(header) + once_by_each_row
    assert decoder.context(0)[: len(header)].tolist() == header


@pytest.mark.parametrize("action", [1, 2, 6])
def test_a_timestep_costs_as_many_passes_as_it_has_action_tokens(action: int) -> None:
    decoder = Decoder(MODELS["qwen3"], 2)
    for slot in range(2):
        decoder.reset(slot, [1, 2])
    for step in range(1, 40):  # across resets of the window as well
        decoder.act([0, 1], [[3, 4, 5]] * 2, [[ANY] * action] * 2)
        assert decoder.forward_passes == step * action


def test_batched_equals_single() -> None:
    """The same sequence chooses the same tokens alone and among others of other lengths."""
    rng = np.random.default_rng(3)
    chunks = [[some_ids(rng, 4) for _ in range(30)] for _ in range(4)]
    headers = [some_ids(rng, 1 + 3 * slot) for slot in range(4)]
    choices = [Choice(interval=EVERYTHING, sampling=Sampling(temperature=1.0))] * 2

    together = Decoder(MODELS["qwen3"], 4)
    for slot in range(4):
        together.reset(slot, headers[slot], seed=slot)
    batched = []
    for step in range(30):
        slots = list(range(4)) if step % 3 else [3, 1, 0, 2]
        ids = together.act(slots, [chunks[s][step] for s in slots], [choices] * 4).ids
        batched.append([ids[slots.index(s)] for s in range(4)])

    for slot in range(4):
        alone = Decoder(MODELS["qwen3"], 1)
        alone.reset(0, headers[slot], seed=slot)
        for step in range(30):
            ids = alone.act([0], [chunks[slot][step]], [choices]).ids
            assert ids[0] == batched[step][slot]


def test_slots_with_different_actions_share_a_batch() -> None:
    """A slot of 1 and a slot of 3 action tokens: 3 passes, each chooses in its own slices."""
    decoder = Decoder(MODELS["qwen3"], 2)
    decoder.reset(0, [1])
    decoder.reset(1, [2, 3])
    legal = [[(10, 12)], [(20, 25), (30, 31), (40, 60)]]
    choices = [
        [Choice(interval=each, sampling=Sampling(temperature=2.0)) for each in intervals]
        for intervals in legal
    ]
    for step in range(1, 20):
        ids = decoder.act([0, 1], [[5], [6, 7, 8]], choices).ids
        assert decoder.forward_passes == 3 * step
        for chosen, intervals in zip(ids, legal, strict=True):
            assert len(chosen) == len(intervals)
            for token, (start, stop) in zip(chosen, intervals, strict=True):
                assert start <= token < stop


@pytest.mark.parametrize("lean", [False, True])
def test_act_takes_what_a_full_pass_holds_likeliest(lean: bool) -> None:
    """Of every action token, in slots of 1 and of 3, also past the window (64 tokens)."""
    model = MODELS["qwen3"]
    decoder = Decoder(model, 3, plain=not lean)
    choices = [[Choice(interval=(10, 90))] * count for count in (1, 3, 3)]
    rng = np.random.default_rng(0)
    for slot in range(3):
        decoder.reset(slot, some_ids(rng, 1 + slot))
    for _ in range(15):
        chunks = [some_ids(rng, 5) for _ in choices]
        for slot, chosen in enumerate(decoder.act([0, 1, 2], chunks, choices).ids):
            context = decoder.context(slot)
            assert context[-len(chosen) :].tolist() == chosen
            for left in range(len(chosen), 0, -1):
                logits = full_logits(model, context[:-left])[10:90]
                assert logits.max() - logits[context[-left] - 10] < TOLERANCE


def test_the_model_is_given_back_as_it_was() -> None:
    model = MODELS["qwen3"]
    before = model.config._attn_implementation
    decoder = Decoder(model, 1, plain=True)
    decoder.reset(0, [1])
    decoder.act([0], [[2]], [[ANY]])
    assert model.config._attn_implementation == before


def test_what_does_not_fit_is_refused() -> None:
    decoder = Decoder(MODELS["qwen3"], 1)
    decoder.reset(0, list(range(60)))
    with pytest.raises(GeneralistError, match="does not fit"):
        decoder.feed([0], [[1] * 5], [1])
    with pytest.raises(GeneralistError, match="at most 64"):
        Decoder(MODELS["qwen3"], 1, window_tokens=65)
    with pytest.raises(GeneralistError, match="before it was reset"):
        Decoder(MODELS["qwen3"], 1).feed([0], [[1]], [1])


def flags_of(count: int) -> st.SearchStrategy[list[bool]]:
    return st.lists(st.booleans(), min_size=count, max_size=count).filter(any)


@settings(max_examples=20, deadline=None)
@given(
    legal=st.lists(st.tuples(flags_of(6), flags_of(50)), min_size=12),
    temperature=st.sampled_from([0.0, 1.0, 5.0]),
    seed=st.integers(0, 1000),
)
def test_masks_exclude_ids_of_the_position_they_are_of(
    legal: list[tuple[list[bool], list[bool]]], temperature: float, seed: int
) -> None:
    """One slot has masks, the other has none and chooses what it chooses in any case."""
    sampling = Sampling(temperature)
    masked, plain = Decoder(MODELS["qwen3"], 2), Decoder(MODELS["qwen3"], 2)
    for decoder in (masked, plain):
        for slot in range(2):
            decoder.reset(slot, [1, slot], seed)
    free = [
        Choice(interval=(10, 16), sampling=sampling),
        Choice(interval=(40, 90), sampling=sampling),
    ]
    for number, (first, second) in enumerate(legal):
        later = np.array(second) if number % 3 else None
        bound = [
            dataclasses.replace(choice, mask=mask)
            for choice, mask in zip(free, (np.array(first), later), strict=True)
        ]
        mine, other = masked.act([0, 1], [[3, 4]] * 2, [bound, free]).ids
        assert first[mine[0] - 10] and 40 <= mine[1] < 90
        assert later is None or later[mine[1] - 40]
        assert other == plain.act([0, 1], [[3, 4]] * 2, [free, free]).ids[1]


def test_a_mask_may_depend_on_the_ids_chosen_before_it() -> None:
    """Three slots, of one, two and three tokens; each function sees its own slot's ids alone."""
    decoder = Decoder(MODELS["qwen3"], 3)
    for slot in range(3):
        decoder.reset(slot, [1, slot], seed=slot)
    asked: list[list[int]] = []

    def next_after(ids: Sequence[int]) -> np.ndarray:
        asked.append(list(ids))
        return np.arange(6) == (ids[-1] - 10 + 1) % 6

    def choices(*masks: Mask) -> list[Choice]:
        return [Choice(interval=(10, 16), mask=mask, sampling=Sampling(3.0)) for mask in masks]

    first, second = choices(None), choices(None, next_after)
    third = choices(np.arange(6) == 4, next_after, next_after)
    for _ in range(15):
        asked.clear()
        _, two, three = decoder.act([0, 1, 2], [[3, 4]] * 3, [first, second, third]).ids
        assert two[1] == 10 + (two[0] - 9) % 6
        assert three == [14, 15, 10]
        assert asked == [[two[0]], [14], [14, 15]]


def test_a_mask_that_allows_all_changes_nothing() -> None:
    chosen: list[list[int]] = []
    for mask in (None, np.ones(6, bool), np.ones(6, np.int8)):
        choice = Choice(interval=(10, 16), mask=mask, sampling=Sampling(1.0))
        decoder = Decoder(MODELS["qwen3"], 1)
        decoder.reset(0, [1])
        chosen.append([])
        for _ in range(40):
            chosen[-1] += decoder.act([0], [[2, 3]], [[choice]]).ids[0]
    assert chosen[0] == chosen[1] == chosen[2]
    assert len(set(chosen[0])) > 1


def test_a_mask_that_cannot_be_met_is_refused() -> None:
    decoder = Decoder(MODELS["qwen3"], 1)
    for mask, words in ((np.zeros(6, bool), "excludes all"), (np.ones(5, bool), "expected .6,.")):
        decoder.reset(0, [1])
        with pytest.raises(GeneralistError, match=words):
            decoder.act([0], [[2]], [[Choice(interval=(10, 16), mask=mask)]])


@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_log_probs_are_of_the_distribution_that_was_drawn_from(top_p: float) -> None:
    """Against full passes; in one batch choices of other slices, temperatures and masks."""
    decoder, other = (Decoder(MODELS["qwen3"], 3) for _ in range(2))
    mask = np.arange(80) % 3 > 0
    drawn = Choice(interval=(10, 90), mask=mask, sampling=Sampling(1.5, top_p))
    cool = Choice(interval=(10, 90), ordinal=True, sampling=Sampling(1.0, top_p))
    choices = [[drawn, cool], [cool], [drawn, Choice(interval=(10, 90)), drawn]]
    for each in (decoder, other):
        for slot in range(3):
            each.reset(slot, [1 + slot], seed=slot)
    for step in range(12):
        chunks = [[5, step], [6], [7, 8, step]]
        found = decoder.act([0, 1, 2], chunks, choices, log_probs=True)
        assert found.ids == other.act([0, 1, 2], chunks, choices).ids
        for slot, (ids, said) in enumerate(zip(found.ids, found.log_probs, strict=True)):
            context = decoder.context(slot)
            for position, (token, log_prob) in enumerate(zip(ids, said, strict=True)):
                choice = choices[slot][position]
                logits = full_logits(MODELS["qwen3"], context[: position - len(ids)])[10:90]
                if choice.sampling.temperature == 0:
                    assert log_prob == 0 and token - 10 == logits.argmax()
                    continue
                if choice.mask is not None:
                    logits[~torch.tensor(choice.mask)] = -torch.inf
                factor = choice.sampling.ordinal_factor if choice.ordinal else 1.0
                chances = (logits / choice.sampling.temperature / factor).softmax(-1)
                ranked = chances.sort(descending=True).values
                kept = ranked[(ranked.cumsum(-1) - ranked) < top_p]
                expected = (chances[token - 10] / kept.sum()).log()
                assert log_prob == pytest.approx(float(expected), abs=1e-3)
