"""Gymnasium spaces as JSON, for people and programs that read a dataset without this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from generalist.errors import GeneralistError

if TYPE_CHECKING:
    from gymnasium import Space


def space_to_json(space: Space) -> dict[str, Any]:
    """Type, shape, dtype and bounds of a space, nested as the space is."""
    from gymnasium import spaces

    from generalist.envs.written import Written

    kind = {"type": type(space).__name__}
    if isinstance(space, spaces.Dict):
        parts = {key: space_to_json(part) for key, part in space.spaces.items()}
        if all(isinstance(key, str) for key in parts):
            return kind | {"spaces": parts}
        return kind | {"keys": list(parts), "spaces": list(parts.values())}  # JSON's are strings
    if isinstance(space, spaces.Tuple):
        return kind | {"spaces": [space_to_json(part) for part in space.spaces]}
    if isinstance(space, Written):
        return kind | {"max_tokens": space.max_tokens}
    if isinstance(space, spaces.Text):
        characters = "".join(sorted(space.character_set))
        lengths = {"min_length": space.min_length, "max_length": space.max_length}
        return kind | lengths | {"characters": characters}
    facts = {**kind, "shape": list(space.shape or ()), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Box):
        return facts | {"low": _bound(space.low), "high": _bound(space.high)}
    if isinstance(space, spaces.Discrete):
        return facts | {"n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return facts | {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
    return facts


def space_from_json(data: dict[str, Any]) -> Space:
    """Inverse of `space_to_json`.

    Raises:
        GeneralistError: The JSON says of a space what is not enough to make it again.
    """
    from gymnasium import spaces

    from generalist.envs.written import Written

    try:
        kind = data["type"]
        if kind == "Dict":
            parts = data["spaces"]
            pairs = zip(data["keys"], parts, strict=True) if "keys" in data else parts.items()
            return spaces.Dict({key: space_from_json(part) for key, part in pairs})
        if kind == "Tuple":
            return spaces.Tuple([space_from_json(part) for part in data["spaces"]])
        if kind == "Written":
            return Written(data["max_tokens"])
        if kind == "Text":
            charset = {"charset": data["characters"]} if "characters" in data else {}
            return spaces.Text(data["max_length"], min_length=data["min_length"], **charset)
        shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
        if kind == "Box":
            low, high = (_array(data[side], shape, dtype) for side in ("low", "high"))
            return spaces.Box(low, high, shape, dtype.type)
        if kind == "Discrete":
            other = {} if dtype == np.int64 else {"dtype": dtype.type}
            return spaces.Discrete(data["n"], start=data["start"], **other)
        if kind == "MultiDiscrete":
            start = data.get("start")
            return spaces.MultiDiscrete(np.array(data["nvec"]), dtype=dtype.type, start=start)
        if kind == "MultiBinary":
            return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise GeneralistError(f"{data} is no description of a space: {error!r}.") from error
    raise GeneralistError(f"A {kind} space cannot be made from its description.")


def _bound(bound: np.ndarray) -> Any:
    """One number where all elements are the same; infinities as words, which JSON lacks."""
    numbers = [_number(x) for x in bound.ravel().tolist()]
    return numbers[0] if numbers and numbers.count(numbers[0]) == len(numbers) else numbers


def _number(x: float) -> float | int | str:
    if isinstance(x, int):  # a bool, too
        return int(x)
    return x if np.isfinite(x) else str(x)


def _array(bound: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    numbers = bound if isinstance(bound, list) else [bound] * int(np.prod(shape))
    kind = float if dtype.kind == "f" else int
    return np.array([kind(x) for x in numbers], dtype=dtype).reshape(shape)
