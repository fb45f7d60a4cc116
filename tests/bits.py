"""Flipped bits: what a failing disk or memory makes of a file."""

from __future__ import annotations

from collections.abc import Iterator


def flipped(content: bytes, bit: int) -> bytes:
    """The content with one bit inverted, counted from the lowest of the first byte."""
    at, place = divmod(bit, 8)
    return content[:at] + bytes([content[at] ^ 1 << place]) + content[at + 1 :]


def every_bit(content: bytes, step: int = 1) -> Iterator[bytes]:
    """The content with each of its bits inverted in turn, or with every `step`-th."""
    return (flipped(content, bit) for bit in range(0, 8 * len(content), step))
