"""Rows of tables, and where they stand, so that whatever is wrong with one is said with its place.

Rows are counted from 0 within their file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol


class Table(Protocol):
    """A table of which only what is asked for is read.

    name: for messages. schema: a pyarrow.Schema. rows: how many, None where that is not known.
    """

    name: str
    schema: Any
    rows: int | None

    def slices(self, columns: list[str], *, first: int, rows: int) -> Iterator[TableSlice]:
        """Read from row `first` on, at most `rows` at once."""


@dataclass(frozen=True)
class TableSlice:
    """Rows of one file; `table` is a pyarrow.Table whose row 0 is the file's row `first_row`."""

    table: Any
    file: str
    first_row: int

    def __len__(self) -> int:
        return self.table.num_rows

    def part(self, start: int, stop: int) -> TableSlice:
        """The rows from `start` up to `stop` of this slice."""
        table = self.table.slice(start, stop - start)
        return replace(self, table=table, first_row=self.first_row + start)

    def place(self, row: int) -> str:
        """Name row `row` of this slice: `row 17 of part-1.parquet`."""
        return f"row {self.first_row + row} of {self.file}"


@dataclass(frozen=True)
class EpisodeRows:
    """The rows of one episode in order, which may go on from one file to the next."""

    slices: tuple[TableSlice, ...]

    @cached_property
    def table(self) -> Any:
        """All rows as one pyarrow.Table."""
        import pyarrow as pa

        return pa.concat_tables([each.table for each in self.slices])

    @property
    def where(self) -> str:
        """Name the rows: `rows 10 to 49 of part-1.parquet`."""
        first, last = self.slices[0], self.slices[-1]
        if first.file != last.file:
            return f"{first.place(0)} to {last.place(len(last) - 1)}"
        stop = last.first_row + len(last) - 1
        if stop == first.first_row:
            return first.place(0)
        return f"rows {first.first_row} to {stop} of {first.file}"

    def place(self, row: int) -> str:
        """Name row `row` of the episode."""
        for each in self.slices:
            if row < len(each):
                return each.place(row)
            row -= len(each)
        raise IndexError(row)
