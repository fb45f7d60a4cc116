"""Random numbers that are a pure function of a key and a place, many rows at once.

A number is the finaliser of SplitMix64 (Steele, Lea and Flood 2014, figure 18) over the key plus a
multiple of its odd increment, and a key that finaliser over another key and a number. To seed a
`numpy.random.Generator` for each row takes longer than to draw the row.
"""

from __future__ import annotations

import numpy as np

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)


def _mixed(values: np.ndarray) -> np.ndarray:
    """uint64 to uint64, each bit of the result depending on all bits; in place."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def key_of(*numbers: int) -> np.uint64:
    """The key of some integers, in this order; negative ones count modulo 2^64."""
    key = np.zeros(1, np.uint64)
    for number in numbers:
        key = keys_of(key[0], np.array([number % 2**64], np.uint64))
    return np.uint64(key[0])


def keys_of(key: np.uint64, numbers: np.ndarray) -> np.ndarray:
    """Keys of numbers under a key.

    Args:
        key: the key.
        numbers: (N,) uint64.

    Returns:
        (N,) uint64.
    """
    return _mixed(_mixed(numbers * _INCREMENT + _INCREMENT) ^ key)


def words(keys: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Uniform 64-bit words.

    Args:
        keys: uint64.
        places: uint64, of a shape that broadcasts with that of `keys`.

    Returns:
        uint64 of the shape that both broadcast to.
    """
    return _mixed(keys + (places + np.uint64(1)) * _INCREMENT)


def uniforms(keys: np.ndarray, first: int, count: int) -> np.ndarray:
    """Uniform numbers of each key, from place `first` on.

    Args:
        keys: (N,) uint64.
        first: place of the first number.
        count: how many of each key.

    Returns:
        (N, count) float64 in [0, 1), multiples of 2^-53.
    """
    places = np.arange(first, first + count, dtype=np.uint64)
    return (words(keys[:, None], places) >> np.uint64(11)) * 2.0**-53
