"""Text: files, or a column of a Hugging Face dataset; a document becomes an episode of its own."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.errors import GeneralistError, UsageError
from generalist.importing.files import (
    EMPTY,
    LFS_POINTER,
    UNKNOWN,
    files_below,
    order_facts,
    what_it_is,
)
from generalist.importing.hub import open_table
from generalist.importing.source import Document, Environment, Load

if TYPE_CHECKING:
    from gymnasium.spaces import Space

_CHARACTERS = 1_000_000  # a longer file becomes several documents, cut between lines
_ROWS = 256
_COLUMN = "text"
_ENCODING = "utf-8-sig"  # UTF-8; the mark that some editors put before it is no part of the text


class TextSource:
    """Documents: of a file, of all files below a folder that match `pattern`, or of a column.

    A file is read as UTF-8. The files of a folder are read in the order of their names, with the
    numbers in them as numbers.
    """

    is_text = True
    environment: Environment | None = None

    def __init__(
        self,
        name: str,
        *,
        column: str | None = None,
        config: str | None = None,
        split: str | None = None,
        pattern: str = "*.txt",
    ) -> None:
        self.name = name
        self.notes: list[str] = []
        self.total: int | None = None
        self.facts: dict[str, Any] = {"from": "text", "dataset": name}
        self._files = None if column is not None else _files(Path(name).expanduser(), pattern)
        if self._files is not None:
            self.facts |= {"pattern": pattern, **order_facts(self._files)}
            return
        self._column = column or _COLUMN
        self.facts |= {"column": self._column, "config": config, "split": split}
        self._table = open_table(name, config=config, split=split)
        self.total = self._table.rows
        if self._column not in self._table.schema.names:
            raise UsageError(
                f"{name} has no column {self._column!r}; it has "
                f"{', '.join(self._table.schema.names)}. Say which with --column NAME."
            )

    def spaces(self) -> tuple[Space, Space] | None:
        """None: documents have none."""
        return None

    def recordings(self, first: int) -> Iterator[Load]:
        """From document `first` on."""
        if self._files is None:
            for rows in self._table.slices([self._column], first=first, rows=_ROWS):
                for row, value in enumerate(rows.table.column(self._column)):
                    yield Load(functools.partial(_document, value, self._column), rows.place(row))
            return
        number = 0
        for file in self._files:
            for load in _documents(file):
                if number >= first:
                    yield load
                number += 1


def _files(path: Path, pattern: str) -> list[Path] | None:
    """The text files at a path; None where it is a dataset of another kind."""
    if path.is_file() and path.suffix != ".parquet":
        return [path]
    if not path.is_dir():
        return None
    return files_below(path, pattern) or None


def _documents(file: Path) -> Iterator[Load]:
    """The text of a file, a long one in several pieces; what cannot be read is one that fails."""
    kind = what_it_is(file)
    if kind == EMPTY or kind == LFS_POINTER:
        yield Load.failing(f"{file} {kind}.")
        return
    lines: list[str] = []
    size = 0
    try:
        with open(file, encoding=_ENCODING) as stream:
            for line in stream:
                if "\0" in line:
                    yield Load.failing(f"{file} holds zero bytes, so it is no UTF-8 text.")
                    return
                lines.append(line)
                size += len(line)
                if size >= _CHARACTERS:
                    yield Load(functools.partial(Document, "".join(lines)), str(file))
                    lines, size = [], 0
    except UnicodeDecodeError as error:
        if kind == UNKNOWN:
            wrong = error.object[error.start]
            kind = (
                f"holds the byte 0x{wrong:02x}: convert it from its encoding, as in "
                "iconv -f latin1 -t utf-8"
            )
        yield Load.failing(f"{file} is not UTF-8 text; it {kind}.")
        return
    except OSError as error:
        yield Load.failing(f"{file} cannot be read: {error.strerror}.")
        return
    if lines:
        yield Load(functools.partial(Document, "".join(lines)), str(file))


def _document(value: Any, column: str) -> Document:
    text = value.as_py()
    if not isinstance(text, str):
        raise GeneralistError(f"{column} holds {text!r:.40} where text is needed.")
    return Document(text)
