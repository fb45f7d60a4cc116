"""Random streams of whoever acts: each has a name, and none is the environment's own.

`env.reset(seed=s)` gives a Gymnasium environment the stream `default_rng(s)`. A policy that drew
from the same one would know what the environment is about to draw.
"""

from __future__ import annotations

from enum import IntEnum, unique

import numpy as np


@unique
class Stream(IntEnum):
    """Who draws. A number stays what it is, or what was drawn before cannot be repeated."""

    AGENT = 0x6167656E
    NOISE = 0x6E6F6973
    SAMPLING_PLANNER = 0x706C616E
    WIDTH_SEARCH = 0x77696474
    RANDOM_POLICY = 0x72616E64
    EXPERT_TRAINING = 0x74726169
    INSTRUCTIONS = 0x696E7374
    OPENINGS = 0x6F70656E
    GOALS = 0x676F616C
    PICTURES = 0x70696374
    TREE_SEARCH = 0x74726565
    RETRIEVAL = 0x72657472


def random_stream(seed: int, stream: Stream) -> np.random.Generator:
    """The random numbers of `stream` in the episode with this seed, the same at every call.

    The entropy is (seed, stream). numpy pads entropy with zeros, so no stream may be 0: that one
    would be the environment's.
    """
    return np.random.default_rng((seed, int(stream)))
