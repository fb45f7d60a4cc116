"""Gymnasium spaces as JSON, for people and programs that read a dataset without this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gymnasium import Space


def space_to_json(space: Space) -> dict[str, Any]:
    """Type, shape, dtype and bounds of a space, nested as the space is."""
    from gymnasium import spaces

    kind = {"type": type(space).__name__}
    if isinstance(space, spaces.Dict):
        return kind | {"spaces": {key: space_to_json(part) for key, part in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return kind | {"spaces": [space_to_json(part) for part in space.spaces]}
    if isinstance(space, spaces.Text):
        return kind | {"min_length": space.min_length, "max_length": space.max_length}
    facts = {**kind, "shape": list(space.shape or ()), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Box):
        return facts | {"low": _bound(space.low), "high": _bound(space.high)}
    if isinstance(space, spaces.Discrete):
        return facts | {"n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return facts | {"nvec": space.nvec.tolist()}
    return facts


def _bound(bound: np.ndarray) -> Any:
    """One number where all elements are the same; infinities as words, which JSON lacks."""
    bound = np.asarray(bound, dtype=np.float64)
    if bound.size and (bound == bound.flat[0]).all():
        value = float(bound.flat[0])
        return value if np.isfinite(value) else str(value)
    return [x if np.isfinite(x) else str(x) for x in bound.ravel().tolist()]
