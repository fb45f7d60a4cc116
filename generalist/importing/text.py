"""Text: files, or a column of a Hugging Face dataset; a document becomes an episode of its own."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.errors import GeneralistError, UsageError
from generalist.importing.hub import open_table
from generalist.importing.source import Document, Load

if TYPE_CHECKING:
    from gymnasium.spaces import Space

_CHARACTERS = 1_000_000  # a longer file becomes several documents, cut between lines
_ROWS = 256
_COLUMN = "text"


class TextSource:
    """Documents: of a file, of all files below a folder that match `pattern`, or of a column.

    A file is read as UTF-8, a folder in the order of the names.
    """

    is_text = True

    def __init__(
        self,
        name: str,
        column: str | None = None,
        config: str | None = None,
        split: str | None = None,
        pattern: str = "*.txt",
    ) -> None:
        self.name = name
        self.notes: list[str] = []
        self.total: int | None = None
        self.facts: dict[str, Any] = {"from": "text", "dataset": name}
        self._files = None if column is not None else _files(Path(name), pattern)
        if self._files is not None:
            self.facts["pattern"] = pattern
            return
        self._column = column or _COLUMN
        self.facts |= {"column": self._column, "config": config, "split": split}
        self._table = open_table(name, config, split)
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
            for batch in self._table.batches([self._column], first, _ROWS):
                for value in batch.column(self._column):
                    yield functools.partial(_document, value, self._column)
            return
        number = 0
        for file in self._files:
            for text in _pieces(file):
                if number >= first:
                    yield functools.partial(Document, text)
                number += 1


def _files(path: Path, pattern: str) -> list[Path] | None:
    """The text files at a path; None where it is a dataset of another kind."""
    if path.is_file() and path.suffix != ".parquet":
        return [path]
    if not path.is_dir():
        return None
    files = sorted(file for file in path.rglob(pattern) if file.is_file())
    return files or None


def _pieces(file: Path) -> Iterator[str]:
    """The text of a file, a long one in several pieces."""
    lines: list[str] = []
    size = 0
    try:
        with open(file, encoding="utf-8") as stream:
            for line in stream:
                lines.append(line)
                size += len(line)
                if size >= _CHARACTERS:
                    yield "".join(lines)
                    lines, size = [], 0
    except UnicodeDecodeError as error:
        raise GeneralistError(f"{file} is not UTF-8 text: {error}.") from error
    if lines:
        yield "".join(lines)


def _document(value: Any, column: str) -> Document:
    text = value.as_py()
    if not isinstance(text, str):
        raise GeneralistError(f"{column} holds {text!r:.40} where text is needed.")
    return Document(text)
