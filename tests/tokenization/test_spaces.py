"""Any Gymnasium space: what is laid out how, and what holds for all of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from generalist.episode import (
    Episode,
    path_name,
    tree_from_leaves,
    tree_get,
    tree_leaves,
    tree_map,
    tree_stack,
)
from generalist.errors import GeneralistError
from generalist.tokenization.layout import Layout, Part
from generalist.tokenization.processor import GeneralistProcessor
from tests.tokenization.random_spaces import nested_spaces, sample

OTHER = spaces.Discrete(2)
many = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module")
def processor() -> GeneralistProcessor:
    return GeneralistProcessor.default()


def legal_ids(layout: Layout, rng: np.random.Generator, steps: int) -> np.ndarray:
    """(steps, k) ids drawn one by one, the first and the last ones often."""
    first, stop = np.array(layout.legal).T
    ids = rng.integers(first, stop, (steps, len(first)))
    edge = rng.random(ids.shape)
    return np.where(edge < 0.2, first, np.where(edge > 0.8, stop - 1, ids))


def row(tree: Any, index: int) -> Any:
    return tree_map(lambda leaf: leaf[index], tree)


@many
@given(space=nested_spaces(), seed=st.integers(0, 2**31))
def test_whatever_ids_are_legal_decode_into_the_space(
    without_frames: GeneralistProcessor, space: spaces.Space, seed: int
) -> None:
    layout = without_frames.layout(OTHER, space)
    ids = legal_ids(layout, np.random.default_rng(seed), steps=8)
    actions = without_frames.decode_actions(ids, layout)
    for step in range(len(ids)):
        assert space.contains(row(actions, step)), row(actions, step)
    for _, leaf in tree_leaves(actions):
        assert leaf.dtype.kind == "U" or np.isfinite(leaf.astype(float)).all()


@many
@given(space=nested_spaces(), seed=st.integers(0, 2**31))
def test_every_element_comes_back_within_the_resolution_of_its_codec(
    without_frames: GeneralistProcessor, space: spaces.Space, seed: int
) -> None:
    layout = without_frames.layout(space, OTHER)
    rng = np.random.default_rng(seed)
    space.seed(seed)
    elements = tree_stack([sample(space, rng) for _ in range(6)])
    ids = without_frames.encode_observations(elements, layout)
    again = layout.decode("observation", ids, without_frames.toolbox)
    assert list(dict(tree_leaves(again))) == [part.path for part in layout.parts_of("observation")]
    for number, field in enumerate(layout.parts_of("observation")):
        where = layout.positions.of_part(number)
        before, after = tree_get(elements, field.path), tree_get(again, field.path)
        assert after.shape == before.shape and after.dtype.kind == before.dtype.kind
        if field.codec.kind == "continuous":
            assert_between_neighbours(field, before, ids[:, where])
        else:
            np.testing.assert_array_equal(after, before)


def assert_between_neighbours(field: Part, values: np.ndarray, ids: np.ndarray) -> None:
    """A value lies between the centres of the bins before and behind its own; ends are open."""
    codec = field.codec
    codes = ids - field.start
    first, stop = np.array(codec.legal).reshape(-1, 2).T
    below = codec.decode(np.maximum(codes - 1, first), None)
    above = codec.decode(np.minimum(codes + 1, stop - 1), None)
    codes = codes.reshape(values.shape)
    last = np.broadcast_to(stop - 1, ids.shape).reshape(values.shape)
    assert ((below <= values) | (codes == 0)).all() and ((values <= above) | (codes == last)).all()


@many
@given(observed=nested_spaces(), acted=nested_spaces())
def test_layouts_and_their_ids_survive_json(
    without_frames: GeneralistProcessor, observed: spaces.Space, acted: spaces.Space
) -> None:
    layout = without_frames.layout(observed, acted)
    again = Layout.from_dict(json.loads(json.dumps(layout.to_dict())))
    assert again == layout and again.to_dict() == layout.to_dict()
    ids = legal_ids(layout, np.random.default_rng(0), steps=3)
    before, after = (
        dict(tree_leaves(without_frames.decode_actions(ids, x))) for x in (layout, again)
    )
    assert [*map(repr, before)] == [*map(repr, after)]
    for path, leaf in before.items():
        np.testing.assert_array_equal(after[path], leaf)


@many
@given(
    space=nested_spaces(),
    seed=st.integers(0, 2**31),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_what_is_not_finite_is_an_error_that_names_field_and_step(
    without_frames: GeneralistProcessor, space: spaces.Space, seed: int, bad: float
) -> None:
    layout = without_frames.layout(space, OTHER)
    rng = np.random.default_rng(seed)
    space.seed(seed)
    elements = tree_stack([sample(space, rng) for _ in range(4)])
    real = [p for p, leaf in tree_leaves(elements) if leaf.dtype.kind == "f" and leaf.size]
    assume(real)
    path = real[rng.integers(len(real))]
    spoilt = tree_get(elements, path).copy()
    spoilt.reshape(4, -1)[2, -1] = bad
    tree = tree_from_leaves([(p, spoilt if p == path else x) for p, x in tree_leaves(elements)])
    with pytest.raises(GeneralistError, match="at step 2") as caught:
        layout.encode("observation", tree, without_frames.toolbox, task="gym/X")
    assert f"gym/X: {path_name(('observation', *path))} " in str(caught.value)


@pytest.mark.parametrize("value", [None, "left", {"a": 1}])
@pytest.mark.parametrize("space", [spaces.Box(-1, 1), spaces.Discrete(3), spaces.Discrete(5000)])
def test_what_is_no_number_is_an_error_that_names_the_field(
    without_frames: GeneralistProcessor, space: spaces.Space, value: Any
) -> None:
    layout = without_frames.layout(spaces.Dict(x=space), OTHER)
    values = np.array([[value]] if space.shape else [value], dtype=object)
    with pytest.raises(GeneralistError, match="gym/X: observation/x "):
        layout.encode("observation", {"x": values}, without_frames.toolbox, task="gym/X")


KINDS = [
    (spaces.Discrete(5000), ["digits"], 2),
    (spaces.MultiDiscrete([5000, 3]), ["digits"], 3),
    (spaces.Box(-1000, 1000, (2,), np.int16), ["digits"], 4),
    (spaces.Box(-np.inf, np.inf, (), np.int32), ["digits"], 4),
    (spaces.Box(0, 1, (5,), np.bool_), ["discrete"], 5),
    (spaces.Box(0, 1, (10, 10, 4), np.bool_), ["grid"], 100),
    (spaces.Box(0, 255, (7, 7), np.uint8), ["discrete"], 49),
    (spaces.Text(6), ["text"], 6),
    (spaces.Dict({2: spaces.Discrete(2), "1": spaces.Box(-1, 1)}), ["discrete", "continuous"], 2),
    (spaces.Dict(x=spaces.Box(-1, 1, (0,)), y=spaces.Discrete(2)), ["continuous", "discrete"], 1),
]


@pytest.mark.parametrize(("space", "kinds", "tokens"), KINDS)
def test_what_a_space_is_laid_out_as(
    without_frames: GeneralistProcessor, space: spaces.Space, kinds: list[str], tokens: int
) -> None:
    layout = without_frames.layout(space, OTHER)
    assert [part.codec.kind for part in layout.parts_of("observation")] == kinds
    assert len(layout.positions.of_role("observation")) == tokens


def test_a_grid_whose_cells_have_bounds_of_their_own_is_no_grid(
    without_frames: GeneralistProcessor,
) -> None:
    high = np.full((2, 2, 2), 3)
    high[1, 1, 0] = 1
    layout = without_frames.layout(OTHER, spaces.Box(np.zeros_like(high), high, dtype=np.int64))
    (field,) = layout.parts_of("action")
    assert field.codec.kind == "discrete" and field.codec.count[6] == 2


FRAMES = [  # shape, kind, frames of how many channels
    ((84, 84, 3), "image", 1, 3),
    ((84, 84, 1), "image", 1, 1),
    ((210, 160, 3), "image", 1, 3),
    ((84, 84), "frames", 1, 1),
    ((1, 84, 84), "frames", 1, 1),
    ((3, 64, 96), "frames", 1, 3),
    ((4, 84, 84), "frames", 4, 1),
    ((84, 84, 4), "frames", 4, 1),
    ((84, 84, 6), "frames", 2, 3),
    ((12, 84, 84), "frames", 4, 3),
    ((4, 84, 84, 1), "frames", 4, 1),
    ((4, 84, 84, 3), "frames", 4, 3),
    ((2, 3, 84, 84), "frames", 2, 3),
    ((2, 2, 40, 50), "frames", 4, 1),
]


@pytest.mark.parametrize(("shape", "kind", "frames", "channels"), FRAMES)
def test_frames_are_36_codes_each_in_whatever_order_their_axes_are(
    processor: GeneralistProcessor, shape: tuple[int, ...], kind: str, frames: int, channels: int
) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    layout = processor.layout(space, OTHER)
    (field,) = layout.parts_of("observation")
    assert (field.codec.kind, field.tokens) == (kind, 36 * frames)
    values = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    ids = processor.encode_observations(values, layout)
    again = layout.decode("observation", ids, processor.toolbox)
    assert again.shape == values.shape and again.dtype == np.uint8
    seen, back = pictures(values, channels), pictures(again, channels)
    assert len(seen) == frames
    for number in range(frames):
        codes = ids[:, 36 * number : 36 * (number + 1)] - field.start
        rgb = np.repeat(seen[number], 3 // channels, axis=-1)
        np.testing.assert_array_equal(codes, processor.frames.encode(rgb))
        decoded = processor.frames.decode(codes)
        if shape.count(84) == 2:  # the frame tokenizer's own size
            expected = decoded.mean(-1, keepdims=True) if channels == 1 else decoded
            np.testing.assert_array_equal(back[number], expected.astype(np.uint8))


def pictures(values: np.ndarray, channels: int) -> list[np.ndarray]:
    """The frames (N, H, W, C) of values (N, *shape), one by one, in the order of their codes."""
    height = next(axis for axis, size in enumerate(values.shape) if size >= 32)
    if height == 1 and values.ndim == 3:
        return [values[..., None]]
    if values.ndim > height + 2:  # channels behind
        ahead = list(np.ndindex(values.shape[1:height]))
        groups = range(0, values.shape[-1], channels)
        return [values[(slice(None), *i)][..., c : c + channels] for i in ahead for c in groups]
    ahead = list(np.ndindex(values.shape[1 : height - 1]))
    groups = range(0, values.shape[height - 1], channels)
    return [
        np.stack([values[(slice(None), *i, c + n)] for n in range(channels)], axis=-1)
        for i in ahead
        for c in groups
    ]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 1, (64, 64), np.uint8),
        spaces.Box(0, 1, (40, 40, 3), np.float32),
        spaces.MultiBinary(5000),
    ],
)
def test_thousands_of_tokens_a_step_are_not_taken_in_silence(
    without_frames: GeneralistProcessor, space: spaces.Space
) -> None:
    with pytest.warns(UserWarning, match=r"observation takes \d+ tokens a step.*uint8"):
        without_frames.layout(space, OTHER)


def test_text_actions_are_in_their_space(without_frames: GeneralistProcessor) -> None:
    space = spaces.Text(8, min_length=3, charset="xyz ")
    layout = without_frames.layout(OTHER, spaces.Dict(say=space))
    assert len(layout.legal) == 8
    ids = layout.encode("action", {"say": np.array(["x y", "zzzzzzzz"])}, without_frames.toolbox)
    assert without_frames.decode_actions(ids, layout)["say"].tolist() == ["x y", "zzzzzzzz"]
    with pytest.raises(GeneralistError, match="gym/X: action/say has 'a' at step 0"):
        layout.encode("action", {"say": np.array(["xax"])}, without_frames.toolbox, task="gym/X")


def test_explain_names_digits_characters_and_odd_keys(without_frames: GeneralistProcessor) -> None:
    observed = spaces.Dict({"a/b": spaces.Discrete(2), "a": spaces.Dict(b=spaces.Discrete(5000))})
    layout = without_frames.layout(observed, spaces.Text(2, charset="xy"))
    episode = Episode(
        "gym/X",
        {"a/b": np.array([1]), "a": {"b": np.array([4999])}},
        np.array(["y"]),
        np.zeros(1),
        True,
        False,
    )
    ids = without_frames.encode(episode, layout)
    said = [(info.field, info.value) for info in without_frames.explain(ids, layout)]
    assert said == [
        ("observation/a/b[0]", "digit 70 of 4999"),
        ("observation/a/b[1]", "digit 29 of 4999"),
        ("observation/'a/b'", "1"),
        ("separator", ""),
        ("action[0]", "'y'"),
        ("action[1]", "end"),
    ]
