"""Spaces to JSON and back."""

from __future__ import annotations

import json

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings

from generalist.errors import GeneralistError
from generalist.shards.spaces import space_from_json, space_to_json
from tests.tokenization.random_spaces import nested_spaces


@settings(max_examples=300, deadline=None)
@given(nested_spaces())
def test_a_space_comes_back_equal(space: gymnasium.Space) -> None:
    assert space_from_json(json.loads(json.dumps(space_to_json(space)))) == space


def test_integers_stay_integers_of_any_size() -> None:
    space = spaces.Box(-(2**62) - 1, 2**62 + 1, (1,), np.int64)
    stored = space_to_json(space)
    assert (stored["low"], stored["high"]) == (-(2**62) - 1, 2**62 + 1)


def test_descriptions_of_earlier_versions_are_read() -> None:
    """They say neither the characters of a Text nor where a MultiDiscrete starts."""
    text = {"type": "Text", "min_length": 1, "max_length": 4}
    assert space_from_json(text) == spaces.Text(4)
    many = {"type": "MultiDiscrete", "shape": [2], "dtype": "int64", "nvec": [3, 4]}
    assert space_from_json(many) == spaces.MultiDiscrete([3, 4])
    box = {"type": "Box", "shape": [2], "dtype": "float32", "low": ["-inf", 0.0], "high": "inf"}
    bounds = np.array([-np.inf, 0], np.float32), np.array([np.inf, np.inf], np.float32)
    assert space_from_json(box) == spaces.Box(*bounds)


@pytest.mark.parametrize(
    "data",
    [{}, {"type": "Box"}, {"type": "Sequence", "shape": [], "dtype": "None"}, {"type": "Dict"}],
)
def test_what_is_no_description_is_refused(data: dict) -> None:
    with pytest.raises(GeneralistError):
        space_from_json(data)
