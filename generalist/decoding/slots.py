"""Slots: running sequences, each in one row of a cache, or in two while its window turns over.

An interrupted or failed timestep leaves no trace: what a slot holds is what was committed, by one
assignment, and `restore` drops the rest. So Ctrl-C between two action tokens does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CopyPrefix = Callable[[int, int, int], None]  # source row, target row, tokens


@dataclass
class Row:
    """One row of the cache: the tokens of its context, of which the first `fed` are cached."""

    index: int
    tokens: list[int]
    fed: int = 0

    @property
    def backlog(self) -> int:
        """How many tokens are not cached yet."""
        return len(self.tokens) - self.fed


class Slot:
    """One running sequence: a header, then timesteps without end.

    number: rows 2 * number and 2 * number + 1 of the cache are its own.
    limit: tokens of a context, the header included, at most.
    keep: as `Decoder` has it.
    random: where the uniform numbers of its choices come from.
    """

    def __init__(
        self,
        number: int,
        header: Sequence[int],
        *,
        limit: int,
        keep: float,
        random: np.random.Generator,
    ) -> None:
        self.header = [int(token) for token in header]
        self._limit = limit
        body = limit - len(self.header)
        self._half_full = body - int(keep * body)  # then a younger row begins
        self._random = random
        self._drawn: list[float] = []  # for the timestep that goes on
        first = Row(2 * number, list(self.header))
        # The rows, the older first, each with how many of its tokens are committed.
        self._rows: tuple[tuple[Row, int], ...] = ((first, len(self.header)),)

    @property
    def older(self) -> Row:
        """The row that the slot acts from."""
        return self._rows[0][0]

    @property
    def younger(self) -> Row | None:
        """The row that takes over when `older` is full, where one has begun."""
        return self._rows[1][0] if len(self._rows) > 1 else None

    @property
    def context(self) -> list[int]:
        """The committed tokens that the next choice is conditioned on."""
        row, whole = self._rows[0]
        return row.tokens[:whole]

    def append(self, tokens: Sequence[int]) -> None:
        """Add tokens to the timestep that goes on."""
        for row, _ in self._rows:
            row.tokens.extend(tokens)

    def replace_last(self, tokens: Sequence[int]) -> None:
        """Put these tokens in the place of as many appended last."""
        for row, _ in self._rows:
            row.tokens[-len(tokens) :] = tokens

    def uniforms(self, count: int) -> list[float]:
        """Numbers in [0, 1) for the choices of this timestep; the same again after `restore`."""
        self._drawn += self._random.random(max(0, count - len(self._drawn))).tolist()
        return self._drawn[:count]

    def commit(self) -> None:
        """Keep all that was appended."""
        rows = tuple((row, len(row.tokens)) for row, _ in self._rows)
        self._rows, self._drawn = rows, []

    def restore(self) -> None:
        """Drop what was appended since the last commit."""
        for row, whole in self._rows:
            del row.tokens[whole:]
            row.fed = min(row.fed, whole)

    def make_room(self, tokens: int, copy_prefix: CopyPrefix) -> None:
        """Before a timestep of so many tokens: begin the younger row, or let it take over."""
        self._start_younger(copy_prefix)
        if len(self.older.tokens) + tokens > self._limit:
            younger = self.younger or self._fork(copy_prefix)
            if len(younger.tokens) + tokens > self._limit:  # long header, short window
                younger = self._fork(copy_prefix)
            self._rows = ((younger, len(younger.tokens)),)
            self._start_younger(copy_prefix)

    def _start_younger(self, copy_prefix: CopyPrefix) -> None:
        older = self.older
        if self.younger is None and len(older.tokens) - len(self.header) >= self._half_full:
            younger = self._fork(copy_prefix)
            self._rows = ((older, len(older.tokens)), (younger, len(younger.tokens)))

    def _fork(self, copy_prefix: CopyPrefix) -> Row:
        """The slot's other row, with the header alone, its keys copied."""
        older = self.older
        fed = min(len(self.header), older.fed)
        copy_prefix(older.index, older.index ^ 1, fed)
        return Row(older.index ^ 1, list(self.header), fed)
