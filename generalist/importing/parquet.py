"""Parquet files as one table: in natural order, each checked before any is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generalist.errors import GeneralistError, needing
from generalist.importing.files import what_it_is
from generalist.importing.tables import TableSlice


def parquet_file(path: Path) -> Any:
    """Open a parquet file; the caller closes it.

    Raises GeneralistError that says what the file is where it is none.
    """
    with needing("Importing parquet files"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        kind = what_it_is(path)
        raise GeneralistError(f"{path} cannot be read as parquet: it {kind}.") from error


def read_slices(
    path: Path, columns: list[str], *, first: int = 0, rows: int
) -> Iterator[TableSlice]:
    """Read columns of a parquet file from row `first` on, at most `rows` at once.

    Raises GeneralistError that names the file and the row from which on it is damaged.
    """
    import pyarrow as pa

    with parquet_file(path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        row = 0
        while sizes and row + sizes[0] <= first:
            row += sizes.pop(0)
        groups = list(range(file.num_row_groups - len(sizes), file.num_row_groups))
        batches = file.iter_batches(rows, row_groups=groups, columns=columns)
        while True:
            try:
                batch = next(batches, None)
            except (OSError, pa.ArrowException) as error:
                raise GeneralistError(
                    f"{path} is damaged from row {row} on: download it again."
                ) from error
            if batch is None:
                return
            # A name with a dot brings what begins like it along.
            table = pa.Table.from_batches([batch]).select(columns)
            skipped = min(max(0, first - row), len(table))
            if skipped < len(table):
                yield TableSlice(table.slice(skipped), str(path), row + skipped)
            row += len(table)


class ParquetTable:
    """Files whose columns have the same names and types, or types of which one holds the others.

    Columns are compared when they are asked for: others may differ.
    """

    def __init__(self, name: str, files: list[Path]) -> None:
        import pyarrow as pa

        self.name, self.files = name, files
        self._schemas: list[Any] = []
        self._rows: list[int] = []
        for path in self.files:
            with parquet_file(path) as file:
                self._schemas.append(file.schema_arrow.remove_metadata())
                self._rows.append(file.metadata.num_rows)
        self.rows: int | None = sum(self._rows)
        if not self.rows:
            raise GeneralistError(f"{self.name} holds no rows.")
        names = dict.fromkeys(name for schema in self._schemas for name in schema.names)
        self._wrong: dict[str, str] = {}
        self.schema: Any = pa.schema([self._unified(name) for name in names])

    def _unified(self, name: str) -> Any:
        """The column's field in all files; what is wrong with it is noted."""
        import pyarrow as pa

        filled = [i for i, rows in enumerate(self._rows) if rows]
        has = [i for i in filled if name in self._schemas[i].names]
        if not has:  # only files without a row have it
            return pa.field(name, pa.null())
        first = has[0]
        found = self._schemas[first].field(name).with_nullable(True)
        for i in filled:
            if i not in has:
                self._wrong[name] = (
                    f"{self.files[i]} has no column {name!r}, which {self.files[first]} has."
                )
        for i in has:
            other = self._schemas[i].field(name).with_nullable(True)
            try:
                both = pa.unify_schemas(
                    [pa.schema([found]), pa.schema([other])], promote_options="permissive"
                )
                found = both.field(name)
            except pa.ArrowException:
                self._wrong[name] = (
                    f"the column {name!r} is of type {found.type} in {self.files[first]}, "
                    f"but of type {other.type} in {self.files[i]}."
                )
        return found

    def slices(self, columns: list[str], *, first: int, rows: int) -> Iterator[TableSlice]:
        """Read from row `first` of all on, at most `rows` at once.

        Raises GeneralistError that names the file which lacks a column or has it in another type.
        """
        import pyarrow as pa

        for name in columns:
            if name in self._wrong:
                raise GeneralistError(self._wrong[name])
        wanted = pa.schema([self.schema.field(name) for name in columns])
        for path, there in zip(self.files, self._rows, strict=True):
            if there > first:
                for each in read_slices(path, columns, first=first, rows=rows):
                    yield TableSlice(_cast(each, wanted), each.file, each.first_row)
            first = max(0, first - there)


def _cast(found: TableSlice, wanted: Any) -> Any:
    import pyarrow as pa

    if found.table.schema.equals(wanted):
        return found.table
    try:
        return found.table.cast(wanted)
    except pa.ArrowException as error:
        raise GeneralistError(
            f"{found.file} holds values that do not go with those of the other files, from row "
            f"{found.first_row} on: {error}."
        ) from error
