"""A layout's parts, what follows from them by position, and the JSON in which they are stored."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.tokenization.continuous import ContinuousCodec
from generalist.tokenization.discrete import DiscreteCodec
from generalist.tokenization.layout import ROLES, Layout, Part, document_layout, stored_layout
from generalist.vocabulary import Vocabulary

VOCABULARY = Vocabulary.default()
BINS, INTEGERS = VOCABULARY["continuous"], VOCABULARY["discrete"]
SEPARATOR = VOCABULARY.special("separator")

STORED = {
    "separator": 8195,
    "fields": [
        {
            "role": "observation",
            "path": ["x"],
            "start": 8224,
            "codec": {
                "kind": "continuous",
                "shape": [2],
                "dtype": "float32",
                "low": [-1.0, -1.0],
                "high": [1.0, 1.0],
                "bins": 1024,
            },
        },
        {
            "role": "action",
            "path": [],
            "start": 9248,
            "codec": {"kind": "discrete", "shape": [], "dtype": "int64", "low": [0], "count": [4]},
        },
    ],
}


def part_of(role: str, path: tuple, values: int, continuous: bool) -> Part:
    if continuous:
        bounds = (-1.0,) * values, (1.0,) * values
        return Part(role, path, ContinuousCodec((values,), "float32", *bounds, 1024), BINS.start)
    codec = DiscreteCodec((values,), "int64", (0,) * values, (7,) * values)
    return Part(role, path, codec, INTEGERS.start)


parts = st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=4)


def laid_out(observed: list, chosen: list) -> Layout:
    made = [
        part_of(role, (name,), *each)
        for role, entries in (("observation", observed), ("action", chosen))
        for name, each in zip("abcd", entries, strict=False)
    ]
    return stored_layout(made, SEPARATOR)


@settings(max_examples=60, deadline=None)
@given(parts, parts, st.integers(0, 2**32 - 1))
def test_positions_follow_from_the_parts(observed: list, chosen: list, seed: int) -> None:
    layout = laid_out(observed, chosen)
    positions, before = layout.positions, 0
    for number, part in enumerate(layout.parts):
        mine = np.arange(before, before + part.tokens)
        np.testing.assert_array_equal(positions.of_part(number), mine)
        np.testing.assert_array_equal(positions.token[mine], np.arange(part.tokens))
        assert {ROLES[role] for role in positions.role[mine]} == {part.role}
        legal = np.array(part.codec.legal).reshape(-1, 2) + part.start
        np.testing.assert_array_equal(positions.first[mine], legal[:, 0])
        np.testing.assert_array_equal(positions.stop[mine], legal[:, 1])
        assert set(positions.bins[mine]) == {part.start if part.codec.ordinal else -1}
        assert set(positions.chosen[mine]) == {part.role == "action"}
        before += part.tokens
    assert layout.tokens_per_timestep == len(positions) == before
    actions = positions.of_role("action")
    np.testing.assert_array_equal(np.array(layout.legal)[:, 0], positions.first[actions])
    # Woven from ids by role, and taken apart by positions.
    random = np.random.default_rng(seed)
    ids = {
        role: random.integers(positions.first[at], positions.stop[at], (6, len(at)))
        for role in ("observation", "action")
        for at in [positions.of_role(role)]
    }
    timesteps = layout.weave(ids)
    assert timesteps.shape == (6, before)
    for role, own in ids.items():
        np.testing.assert_array_equal(timesteps[:, positions.of_role(role)], own)
        tree = layout.decode(role, own, None)
        np.testing.assert_array_equal(layout.encode(role, tree, None), own)
    assert (timesteps[:, positions.of_role("separator")] == SEPARATOR).all()
    given = layout.weave({"observation": ids["observation"]})
    np.testing.assert_array_equal(given, timesteps[:, ~positions.chosen])
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


def test_what_was_stored_before_there_were_parts_is_the_same_layout() -> None:
    layout = Layout.from_dict(json.loads(json.dumps(STORED)))
    assert [part.name for part in layout.parts] == ["observation/x", "separator", "action"]
    assert json.loads(json.dumps(layout.to_dict())) == STORED
    assert layout.tokens_per_timestep == 4 and layout.legal == ((9248, 9252),)
    assert layout.positions.chosen.tolist() == [False, False, False, True]
    separator = layout.parts[1]
    assert separator.codec.legal == ((0, 1),) and separator.start == SEPARATOR


def test_documents_are_chosen_token_by_token() -> None:
    layout = document_layout(VOCABULARY)
    assert layout.is_document and layout.tokens_per_timestep == 1
    assert layout.legal == ((0, VOCABULARY["text"].size),)
    assert layout.positions.chosen.all() and layout.positions.bins.tolist() == [-1]
    assert layout.to_dict()["separator"] is None
    assert Layout.from_dict(layout.to_dict()) == layout
    assert not Layout.from_dict(STORED).is_document


@pytest.mark.parametrize("role", ["observation", "action"])
def test_errors_name_the_part_and_the_step(role: str) -> None:
    from generalist.errors import GeneralistError

    layout = laid_out([(2, False)], [(2, False)])
    with pytest.raises(GeneralistError, match=f"gym/X: {role}/a is missing"):
        layout.encode(role, {"b": np.zeros((3, 2), int)}, None, task="gym/X")
    with pytest.raises(GeneralistError, match=f"{role}/a .*step 1"):
        layout.encode(role, {"a": np.array([[0, 1], [9, 0], [0, 0]])}, None)
