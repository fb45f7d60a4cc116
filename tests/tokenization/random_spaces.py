"""Random nested spaces and random elements of them, for properties that hold for every space."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from hypothesis import assume
from hypothesis import strategies as st

KEYS = ["a", "b", "", "/", "a/b", "a.b", "two words", "ü", "0", 0, 1, -3]
BOUNDS = [0.0, 1e-30, 0.5, 1.0, 1 + 2**-23, 3.0, 255.0, 2e4, 1e5, 1.1e5, 1e6, 5e8, 1e9, 1e12, 1e30]
INTEGERS = [0, 1, 2, 5, 99, 254, 255, 1023, 1024, 1025, 5000, 2**16, 2**31, 2**40, 2**61]
FLOATS = [np.float16, np.float32, np.float64]
INTEGER_TYPES = [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64, np.bool_]
SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (3,), (2, 2), (2, 1, 2), (2, 0)]


@st.composite
def float_boxes(draw: st.DrawFn) -> spaces.Box:
    """Bounds that are missing, wide, equal, close or of a type's largest numbers."""
    shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(FLOATS))
    largest = float(np.finfo(dtype).max)
    sizes = st.sampled_from([*BOUNDS, largest, np.inf]) | st.floats(0, 1e7)
    signed = st.builds(lambda size, sign: size * sign, sizes, st.sampled_from([-1.0, 1.0]))

    def pair() -> tuple[float, float]:
        with np.errstate(over="ignore"):  # beyond the type's largest number there is no bound
            low, high = sorted(float(dtype(draw(signed))) for _ in range(2))
        assume(low < 1e300 and high > -1e300)  # such are refused
        return min(low, largest), max(high, -largest)

    pairs = [pair() for _ in range(int(np.prod(shape)))]
    low, high = (np.array([p[side] for p in pairs], dtype).reshape(shape) for side in (0, 1))
    return spaces.Box(low, high, shape, dtype)


@st.composite
def integer_boxes(draw: st.DrawFn) -> spaces.Box:
    """Bounds that are equal, negative, and further apart than the vocabulary has ids."""
    shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(INTEGER_TYPES))
    first, last = (0, 1) if dtype is np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)

    def pair() -> tuple[int, int]:
        start = draw(st.sampled_from([-(2**62), -5000, -7, 0, 0, 3, 1000, 2**63 + 5]))
        count = draw(st.sampled_from(INTEGERS))
        low = min(max(start, int(first)), int(last))
        return low, min(low + count, int(last))

    pairs = [pair() for _ in range(int(np.prod(shape)))]
    low, high = (np.array([p[side] for p in pairs], dtype).reshape(shape) for side in (0, 1))
    return spaces.Box(low, high, shape, dtype)


def texts() -> st.SearchStrategy[spaces.Text]:
    """Few characters, many, and such as the text tokenizer cuts into bytes."""
    return st.builds(
        lambda shortest, more, charset: spaces.Text(
            min_length=shortest, max_length=shortest + more, charset=charset
        ),
        st.integers(0, 2),
        st.integers(0, 6),
        st.sampled_from(["a", "ab ", "äöü€", "/.\"'\\", "abcdefghijklmnopqrstuvwxyz0123456789"]),
    )


def leaf_spaces() -> st.SearchStrategy[spaces.Space]:
    """Every space that is no Dict or Tuple and can be laid out."""
    counts = st.sampled_from([n for n in INTEGERS if n])
    return st.one_of(
        float_boxes(),
        integer_boxes(),
        st.builds(lambda n, start: spaces.Discrete(n, start=start), counts, st.integers(-9, 9)),
        st.builds(
            lambda nvec, start: spaces.MultiDiscrete(nvec, start=[start] * len(nvec)),
            st.lists(counts, min_size=1, max_size=4),
            st.integers(-9, 9),
        ),
        st.builds(lambda a, b: spaces.MultiDiscrete([[a, b], [b, a]]), counts, counts),
        st.builds(spaces.MultiBinary, st.one_of(st.integers(1, 5), st.just((2, 3)))),
        texts(),
    )


def nested_spaces() -> st.SearchStrategy[spaces.Space]:
    """Spaces with at least one element, alone or in Dicts and Tuples, keys of every kind."""
    nested = st.recursive(
        leaf_spaces(),
        lambda parts: st.one_of(
            st.dictionaries(st.sampled_from(KEYS), parts, min_size=1, max_size=3).map(spaces.Dict),
            st.lists(parts, min_size=1, max_size=3).map(lambda each: spaces.Tuple(each)),
        ),
        max_leaves=5,
    )
    return nested.filter(has_elements)


def has_elements(space: spaces.Space) -> bool:
    """Whether there is anything to choose or to see."""
    if isinstance(space, spaces.Dict):
        return any(map(has_elements, space.spaces.values()))
    if isinstance(space, spaces.Tuple):
        return any(map(has_elements, space.spaces))
    if isinstance(space, spaces.Text):
        return space.max_length > 0
    return int(np.prod(space.shape)) > 0


def sample(space: spaces.Space, rng: np.random.Generator) -> Any:
    """An element; of a Box often at its bounds, and of every size between them."""
    if isinstance(space, spaces.Dict):
        return {key: sample(part, rng) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(sample(part, rng) for part in space.spaces)
    if isinstance(space, spaces.Text):
        letters = sorted(space.character_set)
        length = rng.integers(space.min_length, space.max_length + 1)
        return "".join(rng.choice(letters) for _ in range(length))
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        largest = np.finfo(space.dtype).max
        sizes = 10 ** rng.uniform(-9, 9, space.shape) * rng.choice([-1, 1], space.shape)
        at = rng.choice([-np.inf, np.inf, 0.0, 1.0], space.shape)
        values = np.where(rng.random(space.shape) < 0.5, sizes, at)
        values = np.clip(values, np.maximum(space.low, -largest), np.minimum(space.high, largest))
        return values.astype(space.dtype)
    if isinstance(space, spaces.Box):
        pairs = zip(space.low.ravel().tolist(), space.high.ravel().tolist(), strict=True)
        values = [int(low) + int(rng.random() * (int(high) - int(low) + 1)) for low, high in pairs]
        return np.array(values, space.dtype).reshape(space.shape)
    return space.sample()
