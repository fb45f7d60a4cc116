"""Masks of legal actions: what they allow, and nothing else, can be drawn and decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.envs.masks import checked_mask
from generalist.errors import GeneralistError
from generalist.tokenization.masks import token_masks
from generalist.tokenization.processor import GeneralistProcessor
from tests.masks import allowed, masks_of, nested_spaces

SEEN = spaces.Box(-1.0, 1.0, (2,), np.float32)


@st.composite
def masked_spaces(draw: st.DrawFn) -> tuple[spaces.Space, Any]:
    space = draw(nested_spaces())
    return space, draw(masks_of(space))


@settings(max_examples=150, deadline=None)
@given(case=masked_spaces(), seed=st.integers(0, 2**31))
def test_tokens_that_a_mask_allows_decode_to_what_it_allows(
    without_frames: GeneralistProcessor, case: tuple[spaces.Space, Any], seed: int
) -> None:
    space, mask = case
    layout = without_frames.layout(SEEN, space)
    rng = np.random.default_rng(seed)
    ids = []
    found = token_masks(layout, mask)
    assert len(found) == len(layout.legal)
    for (start, stop), flags in zip(layout.legal, found, strict=True):
        flags = flags(ids) if callable(flags) else flags
        assert flags is None or (flags.dtype == bool and flags.shape == (stop - start,))
        legal = np.arange(start, stop) if flags is None else start + np.flatnonzero(flags)
        ids.append(rng.choice(legal))
    batch = without_frames.decode_actions(np.array([ids]), layout)
    action = row(batch)
    assert space.contains(action) and allowed(space, mask, action)


@settings(max_examples=100, deadline=None)
@given(case=masked_spaces(), seed=st.integers(0, 2**31))
def test_tokens_of_every_action_that_a_mask_allows_are_legal(
    without_frames: GeneralistProcessor, case: tuple[spaces.Space, Any], seed: int
) -> None:
    """The other way round: Gymnasium's own sample of the mask; nothing legal is excluded."""
    space, mask = case
    space.seed(seed)
    action = space.sample(checked_mask(space, mask))
    assert space.contains(action) and allowed(space, mask, action)
    layout = without_frames.layout(SEEN, space)
    batch = stacked(action)
    (ids,) = layout.encode("action", batch, without_frames.toolbox)
    masks = token_masks(layout, mask)
    for place, (token, (start, _), flags) in enumerate(zip(ids, layout.legal, masks, strict=True)):
        flags = flags(ids[:place].tolist()) if callable(flags) else flags
        assert flags is None or flags[token - start]


def row(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {key: row(part) for key, part in batch.items()}
    return tuple(map(row, batch)) if isinstance(batch, tuple) else batch[0]


def stacked(action: Any) -> Any:
    if isinstance(action, dict):
        return {key: stacked(part) for key, part in action.items()}
    return tuple(map(stacked, action)) if isinstance(action, tuple) else np.asarray(action)[None]


TWO = spaces.Dict({"keys": spaces.MultiDiscrete([3, 2]), "stick": SEEN})
BAD = [
    (spaces.Discrete(3), [0, 0, 0], "action .*allows none of 3"),
    (spaces.Discrete(3), [1, 1], r"action .*shape \(2,\); expected \(3,\)"),
    (spaces.Discrete(3), [1, 2, 0], "other values than 0 and 1"),
    (spaces.Discrete(3), "ab", "expected an array of flags"),
    (spaces.MultiDiscrete([3, 2]), ([1, 0, 1], [0, 0]), r"action\[1\] .*allows none of 2"),
    (spaces.MultiDiscrete([3, 2]), ([1, 0, 1],), "a tuple of 1; expected a tuple of 2"),
    (spaces.MultiDiscrete([3, 2]), np.ones(5), r"shape \(5,\); expected a tuple of 2"),
    (spaces.MultiBinary(3), np.array([0, 1]), r"shape \(2,\); expected \(3,\)"),
    (spaces.MultiBinary(3), np.array([0, 1, 3]), "other values than 0, 1 and 2"),
    (TWO, {"keys": None, "stick": np.ones(2)}, "action/stick .*"),
    (TWO, {"keys": ([0, 0, 0], [1, 1]), "stick": None}, r"action/keys\[0\] .*allows none"),
    (TWO, {"keys": None}, "a dict of keys; expected a dict of the masks of keys, stick"),
    (TWO, np.ones(3), r"shape \(3,\); expected a dict"),
    (spaces.Tuple((SEEN, spaces.Discrete(2))), (None,), "a tuple of 1; expected a tuple of 2"),
    (spaces.Tuple((SEEN, spaces.Discrete(2))), (None, [0, 0]), "action/1 .*allows none of 2"),
]


@pytest.mark.parametrize(("space", "mask", "says"), BAD)
def test_a_mask_of_another_form_or_that_allows_nothing_is_named(
    without_frames: GeneralistProcessor, space: spaces.Space, mask: Any, says: str
) -> None:
    with pytest.raises(GeneralistError, match=says):
        checked_mask(space, mask)
    with pytest.raises(GeneralistError, match=says):
        token_masks(without_frames.layout(SEEN, space), mask)
