"""The flat vocabulary: named, append-only ranges of token ids.

Text comes first and keeps the ids of its tokenizer, so the embedding table of a pretrained
language model is a prefix of ours. Ranges are only ever appended, so old shards stay valid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from generalist.errors import GeneralistError

SPECIAL_NAMES = (
    "pad",
    "begin",
    "end",
    "separator",
    "demonstration_end",
    "instruction",
    "return",
    "reward",
)
DEFAULT_RANGES = (
    ("text", 8192),
    ("special", 32),
    ("continuous", 1024),
    ("discrete", 1024),
    ("image", 1024),
    ("return", 256),
)


@dataclass(frozen=True)
class TokenRange:
    """The ids [start, start + size) and what they mean."""

    name: str
    start: int
    size: int

    @property
    def stop(self) -> int:
        """First id after the range."""
        return self.start + self.size


class Vocabulary:
    """An ordered list of named ranges that together cover [0, size) without a gap.

    Args:
        ranges: name and size of each, in order.

    Attributes:
        size: number of all ids.

    Raises:
        GeneralistError: a name stands twice, or a range is too small.
    """

    def __init__(self, ranges: Sequence[tuple[str, int]]) -> None:
        self._ranges: dict[str, TokenRange] = {}
        start = 0
        for name, size in ranges:
            if name in self._ranges:
                raise GeneralistError(f"The vocabulary has two ranges named {name!r}.")
            if size < 1:
                raise GeneralistError(f"The range {name!r} needs at least one id, got {size}.")
            self._ranges[name] = TokenRange(name, start, size)
            start += size
        self.size = start
        if "special" in self and self["special"].size < len(SPECIAL_NAMES):
            raise GeneralistError(
                f"The range 'special' needs at least {len(SPECIAL_NAMES)} ids, "
                f"got {self['special'].size}."
            )

    @classmethod
    def default(cls, text_size: int = 8192) -> Vocabulary:
        """The shipped vocabulary, 11,552 ids with the shipped text tokenizer."""
        return cls([("text", text_size), *DEFAULT_RANGES[1:]])

    def append(self, name: str, size: int) -> Vocabulary:
        """A new vocabulary with one more range at the end; every old id keeps its meaning."""
        return Vocabulary([*((r.name, r.size) for r in self), (name, size)])

    def begins_with(self, other: Vocabulary) -> bool:
        """Whether every id of `other` means the same here."""
        mine = self.to_dict()["ranges"]
        theirs = other.to_dict()["ranges"]
        return mine[: len(theirs)] == theirs

    def __iter__(self) -> Iterator[TokenRange]:
        return iter(self._ranges.values())

    def __contains__(self, name: object) -> bool:
        return name in self._ranges

    def __getitem__(self, name: str) -> TokenRange:
        try:
            return self._ranges[name]
        except KeyError:
            known = ", ".join(self._ranges)
            raise GeneralistError(f"There is no token range {name!r}; there are {known}.") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def special(self, name: str) -> int:
        """The id of a named special token."""
        try:
            return self["special"].start + SPECIAL_NAMES.index(name)
        except ValueError:
            known = ", ".join(SPECIAL_NAMES)
            raise GeneralistError(
                f"No special token is named {name!r}; there are {known}."
            ) from None

    def range_of(self, token_id: int) -> TokenRange:
        """The range that holds `token_id`."""
        for token_range in self:
            if token_range.start <= token_id < token_range.stop:
                return token_range
        raise GeneralistError(f"Token id {token_id} lies outside the vocabulary [0, {self.size}).")

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned dtype, uint16 or uint32, that holds every id."""
        return np.dtype(np.uint16 if self.size <= 2**16 else np.uint32)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the names and sizes of the ranges."""
        return fingerprint_of(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """JSON form: the ranges in order."""
        return {"ranges": [[r.name, r.size] for r in self]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Vocabulary:
        """Inverse of `to_dict`."""
        return cls([(str(name), int(size)) for name, size in data["ranges"]])


def fingerprint_of(data: Any) -> str:
    """16 hex digits over a JSON value, independent of key order."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
