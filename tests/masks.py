"""Random nested spaces, random masks of them, and what a mask allows, by Gymnasium's words."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

_KEYS = ["a", "b", "keys", "0", "odd key/with a slash", "ü", 0, 7]


def _leaves() -> st.SearchStrategy[spaces.Space]:
    return st.one_of(
        st.builds(
            lambda n, start: spaces.Discrete(n, start=start),
            st.integers(1, 7),
            st.integers(-3, 3),
        ),
        st.builds(
            lambda counts, start: spaces.MultiDiscrete(counts, start=[start] * len(counts)),
            st.lists(st.integers(1, 5), min_size=1, max_size=4),
            st.integers(-2, 2),
        ),
        st.builds(
            lambda counts: spaces.MultiDiscrete([counts[:2], counts[2:]]),
            st.lists(st.integers(1, 4), min_size=4, max_size=4),
        ),
        st.builds(spaces.MultiBinary, st.one_of(st.integers(1, 5), st.just((2, 3)))),
        st.sampled_from([spaces.Discrete(5000, start=-4), spaces.Discrete(1025)]),
        st.sampled_from([spaces.MultiDiscrete([3000, 2]), spaces.MultiDiscrete([[2, 1500]])]),
        st.just(spaces.Box(-1.0, 1.0, (2,), np.float32)),
        st.just(spaces.Box(0, 4, (3,), np.int64)),
    )


def nested_spaces() -> st.SearchStrategy[spaces.Space]:
    """Discrete, MultiDiscrete, MultiBinary and Box, alone or in Dicts and Tuples."""
    return st.recursive(
        _leaves(),
        lambda parts: st.one_of(
            st.builds(
                spaces.Dict, st.dictionaries(st.sampled_from(_KEYS), parts, min_size=1, max_size=3)
            ),
            st.builds(lambda each: spaces.Tuple(each), st.lists(parts, min_size=1, max_size=3)),
        ),
        max_leaves=5,
    )


def masks_of(space: spaces.Space) -> st.SearchStrategy[Any]:
    """Masks of a space that allow something, in the dtypes in which environments give them."""
    if isinstance(space, spaces.Discrete):
        return _maybe(_flags(int(space.n)))
    if isinstance(space, spaces.MultiDiscrete):
        return _maybe(_elements(space.nvec))
    if isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape))
        bits = st.lists(st.integers(0, 2), min_size=size, max_size=size)
        return _maybe(bits.map(lambda each: np.array(each, np.int8).reshape(space.shape)))
    if isinstance(space, spaces.Dict):
        return _maybe(st.fixed_dictionaries({k: masks_of(p) for k, p in space.spaces.items()}))
    if isinstance(space, spaces.Tuple):
        return _maybe(st.tuples(*map(masks_of, space.spaces)))
    return st.none()


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(strategy, st.none())


def _flags(count: int) -> st.SearchStrategy[np.ndarray]:
    dtype = st.sampled_from([np.int8, bool, np.int64])
    if count > 1000:  # a few legal ones, or all but a few
        few = st.sets(st.integers(0, count - 1), min_size=1, max_size=3).map(
            lambda chosen: np.isin(np.arange(count), list(chosen))
        )
        return st.builds(
            lambda flags, other, dtype: (flags ^ other).astype(dtype), few, st.booleans(), dtype
        )
    flags = st.lists(st.booleans(), min_size=count, max_size=count).filter(any)
    return st.builds(np.array, flags, dtype)


def _elements(counts: np.ndarray) -> st.SearchStrategy[Any]:
    if counts.ndim == 0:
        return _flags(int(counts))
    return st.tuples(*map(_elements, counts))


def allowed(space: spaces.Space, mask: Any, action: Any) -> bool:
    """Whether `mask` allows `action`, written without the code under test."""
    if mask is None:
        return True
    if isinstance(space, spaces.Discrete):
        return bool(mask[int(action) - int(space.start)])
    if isinstance(space, spaces.MultiDiscrete):
        return all(_element(mask, index)[int(value) - int(space.start[index])]
                   for index, value in np.ndenumerate(action))  # fmt: skip
    if isinstance(space, spaces.MultiBinary):
        return bool(((mask == 2) | (mask == action)).all())
    if isinstance(space, spaces.Dict):
        return all(allowed(part, mask[key], action[key]) for key, part in space.spaces.items())
    pairs = zip(space.spaces, mask, action, strict=True)
    return all(allowed(part, each, chosen) for part, each, chosen in pairs)


def _element(mask: Any, index: tuple[int, ...]) -> Any:
    for number in index:
        mask = mask[number]
    return mask
