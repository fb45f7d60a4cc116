"""Slots: running sequences, each in one row of a cache, or in two while its window turns over.

An interrupted or failed timestep leaves no trace: what a slot holds is what was committed, by one
assignment, and `restore` drops the rest. So Ctrl-C between two action tokens does no harm.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

CopyPrefix = Callable[[int, int, int], None]  # source row, target row, tokens


@dataclass
class Row:
    """One row of the cache.

    Attributes:
        index: its number in the cache.
        tokens: of its context.
        fed: how many of them, the first, are cached.
        added: vectors for the embeddings of tokens.
        trunk: what it has in common with all rows that were forked from where it was; None where it
            was not forked.
    """

    index: int
    tokens: list[int]
    fed: int = 0
    added: list[Added] = field(default_factory=list)
    trunk: Trunk | None = None

    @property
    def backlog(self) -> int:
        """How many tokens are not cached yet."""
        return len(self.tokens) - self.fed

    @property
    def waiting(self) -> list[Added]:
        """What is added to the embeddings of the tokens that are not cached yet."""
        return [each for each in self.added if each.place >= self.fed]

    def settle(self) -> None:
        """Take note that all tokens are cached. Their vectors stay, for another header."""
        self.fed = len(self.tokens)

    def cut(self, length: int) -> None:
        """Drop what comes after the first `length` tokens."""
        del self.tokens[length:]
        self.fed = min(self.fed, length)
        self.added = [each for each in self.added if each.place < length]


@dataclass(eq=False)
class Trunk:
    """The first tokens of rows that were forked from one row, as it was then.

    Attributes:
        fed: how many of them were cached.
    """

    fed: int


class Added(NamedTuple):
    """Vectors that are added to the embeddings of neighbouring tokens of a row.

    Attributes:
        place: of the first of the tokens.
        vectors: (n, E), one for each of n tokens.
    """

    place: int
    vectors: torch.Tensor


class _Rows(NamedTuple):
    """The rows of a slot, and how much of them is committed.

    Attributes:
        older: which the slot acts from.
        younger: takes over when `older` is full; None while there is none.
        skipped: tokens that `older` has and `younger` has not.
        whole: tokens of `older` that are committed.
    """

    older: Row
    younger: Row | None
    skipped: int
    whole: int


class Slot:
    """One running sequence: a header, then timesteps without end.

    Args:
        number: rows 2 * number and 2 * number + 1 of the cache are its own.
        header: ids of the header.
        limit: most tokens of a context, the header included.
        keep: as `Decoder` has it.
        random: where the uniform numbers of its choices come from.
        added: vectors for the embeddings of the header.

    Attributes:
        header: ids of the header.
    """

    def __init__(
        self,
        number: int,
        header: Sequence[int],
        *,
        limit: int,
        keep: float,
        random: np.random.Generator,
        added: Sequence[Added] = (),
    ) -> None:
        self.header = [int(token) for token in header]
        self._added = list(added)
        self._limit, self._keep = limit, keep
        body = limit - len(self.header)
        self._half_full = body - int(keep * body)  # then a younger row begins
        self._random = random
        self._drawn: list[float] = []  # for the timestep that goes on
        self._used = 0  # of these
        first = Row(2 * number, list(self.header), added=list(added))
        self._rows = _Rows(first, None, 0, len(self.header))

    @property
    def older(self) -> Row:
        """The row that the slot acts from."""
        return self._rows.older

    @property
    def younger(self) -> Row | None:
        """The row that takes over when `older` is full, where one has begun."""
        return self._rows.younger

    @property
    def context(self) -> list[int]:
        """The committed tokens that the next choice is conditioned on."""
        return self._rows.older.tokens[: self._rows.whole]

    def append(self, tokens: Sequence[int], vectors: torch.Tensor | None = None) -> None:
        """Add tokens to the timestep that goes on.

        Args:
            tokens: n ids.
            vectors: (n, E), added to their embeddings; None for nothing.
        """
        older, younger, _, _ = self._rows
        for row in (older, younger):
            if row is not None:
                if vectors is not None:
                    row.added.append(Added(len(row.tokens), vectors))
                row.tokens.extend(tokens)

    def replace_last(self, tokens: Sequence[int]) -> None:
        """Put these tokens in the place of as many appended last."""
        older, younger, _, _ = self._rows
        older.tokens[-len(tokens) :] = tokens
        if younger is not None:
            younger.tokens[-len(tokens) :] = tokens

    def replace_last_vectors(self, vectors: torch.Tensor) -> None:
        """Put these vectors in the place of those appended last, which are not cached yet."""
        for row in (self.older, self.younger):
            if row is not None:
                assert row.added[-1].place >= row.fed, "what is cached cannot be replaced"
                row.added[-1] = row.added[-1]._replace(vectors=vectors)

    def forked(self, number: int, before: Slot | None, trunk: Trunk) -> tuple[Slot, int]:
        """A copy of this slot under another number, without a younger row.

        Args:
            number: of the copy.
            before: what ran under that number; None for nothing.
            trunk: of all copies that are made now of a slot that is no copy itself.

        Returns:
            The copy, and how many of its tokens the row under that number has cached already.
        """
        older = self.older
        trunk = older.trunk or trunk
        known = 0
        if before is not None and before.older.trunk is trunk:
            known = trunk.fed
        fork = copy.copy(self)
        row = Row(2 * number, list(older.tokens), older.fed, list(older.added), trunk)
        fork._rows = _Rows(row, None, 0, self._rows.whole)
        fork._drawn = list(self._drawn)
        return fork, known

    def take_younger(self, source: Slot) -> tuple[Row, Row] | None:
        """Begin a younger row as that of the slot this one was forked from.

        Returns:
            The source's row and this slot's; None where there is none.
        """
        row = source.younger
        if row is None:
            return None
        own = Row(self.older.index ^ 1, list(row.tokens), row.fed, list(row.added))
        self._rows = self._rows._replace(younger=own, skipped=source._rows.skipped)
        return row, own

    def uniform(self) -> float:
        """The next number in [0, 1) for a choice of this timestep; the same after `restore`."""
        if self._used == len(self._drawn):
            self._drawn.append(self._random.random())
        self._used += 1
        return self._drawn[self._used - 1]

    def commit(self) -> None:
        """Keep all that was appended."""
        older, younger, skipped, _ = self._rows
        rows = _Rows(older, younger, skipped, len(older.tokens))
        self._rows, self._drawn, self._used = rows, [], 0

    def rehead(self, header: Sequence[int], added: Sequence[Added], limit: int) -> None:
        """Put another header in place of the present one, before the timesteps that are kept.

        All keys depend on the header, so that all tokens are fed again with the next timestep. What
        does not fit any more is left out from the oldest timestep on, by `make_room`.

        Args:
            header: its ids.
            added: vectors for their embeddings.
            limit: most tokens of a context with it.
        """
        self.restore()
        before, older = len(self.header), self.older
        self.header, self._added, self._limit = [int(token) for token in header], list(added), limit
        body = limit - len(self.header)
        self._half_full = body - int(self._keep * body)
        moved = len(self.header) - before
        rows: list[Row] = []
        for row in (older, self.younger):
            if row is None:
                continue
            kept = [Added(p + moved, vectors) for p, vectors in row.added if p >= before]
            tokens = [*self.header, *row.tokens[before:]]
            rows.append(Row(row.index, tokens, added=[*added, *kept]))
        younger = rows[1] if len(rows) > 1 else None
        self._rows = _Rows(rows[0], younger, self._rows.skipped, len(rows[0].tokens))

    def restore(self) -> None:
        """Drop what was appended since the last commit."""
        older, younger, skipped, whole = self._rows
        self._used = 0
        if len(older.tokens) > whole:
            older.cut(whole)
        if younger is not None and len(younger.tokens) > whole - skipped:
            younger.cut(whole - skipped)

    def make_room(self, tokens: int, copy_prefix: CopyPrefix) -> None:
        """Begin the younger row, or let it take over, before a timestep.

        Args:
            tokens: of the timestep.
            copy_prefix: copies the first tokens of a row to another.
        """
        self._start_younger(copy_prefix)
        if len(self.older.tokens) + tokens > self._limit:
            younger = self.younger or self._fork(copy_prefix)
            if len(younger.tokens) + tokens > self._limit:  # long header, short window
                younger = self._fork(copy_prefix)
            self._rows = _Rows(younger, None, 0, len(younger.tokens))
            self._start_younger(copy_prefix)

    def _start_younger(self, copy_prefix: CopyPrefix) -> None:
        older, younger, _, whole = self._rows
        if younger is None and len(older.tokens) - len(self.header) >= self._half_full:
            younger = self._fork(copy_prefix)
            self._rows = _Rows(older, younger, whole - len(younger.tokens), whole)

    def _fork(self, copy_prefix: CopyPrefix) -> Row:
        """The slot's other row, with the header alone, its keys copied."""
        older = self.older
        fed = min(len(self.header), older.fed)
        copy_prefix(older.index, older.index ^ 1, fed)
        return Row(older.index ^ 1, list(self.header), fed, list(self._added))


def added_to(rows: Sequence[Row]) -> torch.Tensor | None:
    """What is added to the embeddings of all that rows lack.

    Returns:
        (P, E) for P tokens, row by row; None where nothing is added.
    """
    waiting = [each for row in rows for each in row.waiting]
    if not waiting:
        return None
    like = waiting[0].vectors
    pieces = []
    for row in rows:
        at = row.fed
        for place, vectors in row.waiting:
            if place > at:
                pieces.append(like.new_zeros(place - at, like.shape[1]))
            pieces.append(vectors)
            at = place + len(vectors)
        if len(row.tokens) > at:
            pieces.append(like.new_zeros(len(row.tokens) - at, like.shape[1]))
    return torch.cat(pieces)
