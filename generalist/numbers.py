"""Numbers that are written so that they are read again as they were."""

from __future__ import annotations

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
"""Pattern of a decimal number; one too large for a float is infinite."""


def exactly(number: float) -> str:
    """A number as `float` reads it again: in six digits where they say it all, else in more."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))
