"""Hugging Face `datasets`: a repository, a folder of `save_to_disk`, or parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.errors import GeneralistError, UsageError, needing
from generalist.importing.files import check_it_is_there, files_below, order_facts, what_it_is
from generalist.importing.parquet import ParquetTable
from generalist.importing.rows import NO_REWARDS, Columns, Rows
from generalist.importing.source import Environment, Load
from generalist.importing.tables import Table, TableSlice
from generalist.network import reaching

if TYPE_CHECKING:
    from gymnasium.spaces import Space

_ROWS_OF_EPISODES = 8  # read at once; each may be thousands of steps
_ROWS_OF_STEPS = 4096


@dataclass
class HubTable:
    """A dataset of the package `datasets`, of which only what is asked for is read."""

    name: str
    schema: Any  # pyarrow.Schema
    rows: int | None
    dataset: Any

    def slices(self, columns: list[str], *, first: int, rows: int) -> Iterator[TableSlice]:
        """Read from row `first` on, at most `rows` at once.

        Raises GeneralistError where the server cannot be reached or the data are damaged.
        """
        chosen = self.dataset.select_columns(columns)
        if first:
            there_is_more = self.rows is None or first < self.rows
            if not there_is_more:
                return
            chosen = chosen.skip(first)
        batches = chosen.with_format("arrow").iter(batch_size=rows)
        while (table := self._next(batches, first)) is not None:
            yield TableSlice(table, self.name, first)
            first += len(table)

    def _next(self, batches: Iterator[Any], row: int) -> Any:
        import pyarrow as pa

        with reaching(self.name):
            try:
                return next(batches, None)
            except pa.ArrowException as error:
                raise GeneralistError(
                    f"{self.name} is damaged from row {row} on: {error}."
                ) from error


def open_table(name: str, *, config: str | None = None, split: str | None = None) -> Table:
    """Open a repository `owner/name`, a folder of `save_to_disk`, or parquet files or their folder.

    split: needed where there are several. Nothing but Arrow, parquet and what `datasets` reads
    without running or unpickling anything is opened.

    Raises UsageError where nothing is called `name`, GeneralistError that names the file which
    cannot be read, and says what it is.
    """
    path = Path(name).expanduser()
    if (path / "state.json").is_file():
        return _table(name, _from_disk(path))
    if (path / "dataset_dict.json").is_file():
        return _table(name, _from_disk(_split_folder(path, split)))
    if path.is_dir():
        files = files_below(path, "*.parquet")
        if not files:
            raise UsageError(
                f"{name} is neither a folder of `save_to_disk` nor one with parquet files."
            )
        return ParquetTable(name, files)
    if path.exists():
        if path.suffix != ".parquet":
            raise UsageError(
                f"{name} is not called *.parquet; it {what_it_is(path)}. Expected a parquet file, "
                "a folder of them or one of `save_to_disk`."
            )
        return ParquetTable(name, [path])
    if path.is_absolute() or name.count("/") != 1:
        raise UsageError(f"{name} is no file or folder here, and no repository is named like that.")
    return _table(name, _repository(name, config, split))


def _from_disk(path: Path) -> Any:
    with needing("Importing a saved dataset"):
        import datasets

    from generalist.shards.files import read_json

    check_it_is_there(path / "state.json")
    try:
        for each in read_json(path / "state.json")["_data_files"]:
            check_it_is_there(_within(path, each["filename"]))
        return datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GeneralistError(f"{path} cannot be read as a saved dataset: {error}.") from error


def _split_folder(path: Path, split: str | None) -> Path:
    from generalist.shards.files import read_json

    check_it_is_there(path / "dataset_dict.json")
    known = read_json(path / "dataset_dict.json")
    if not isinstance(known, dict) or not isinstance(known.get("splits"), list):
        raise GeneralistError(f"{path}/dataset_dict.json does not list the splits.")
    return _within(path, _one_of(str(path), known["splits"], split))


def _within(folder: Path, name: str) -> Path:
    """The file or folder of that name; GeneralistError for a name that leads elsewhere."""
    if Path(name).name != name:
        raise GeneralistError(f"{folder} names {name!r}, which is no name of a file within it.")
    return folder / name


def _repository(name: str, config: str | None, split: str | None) -> Any:
    with needing("Importing from the Hub"):
        import datasets

    with reaching(name):
        if config is None:
            names = datasets.get_dataset_config_names(name)
            if len(names) > 1:
                raise UsageError(
                    f"{name} has several configurations; say which with --config: "
                    f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}."
                )
        splits = datasets.get_dataset_split_names(name, config)
    with reaching(name):
        return datasets.load_dataset(
            name, config, split=_one_of(name, splits, split), streaming=True
        )


def _one_of(name: str, splits: list[str], split: str | None) -> str:
    if split is None:
        split = splits[0] if len(splits) == 1 else "train"
    if split not in splits:
        raise UsageError(f"{name} has no split {split!r}; it has {', '.join(splits)}: see --split.")
    return split


def _table(name: str, dataset: Any) -> HubTable:
    with reaching(name):
        first = next(iter(dataset.with_format("arrow").iter(batch_size=1)), None)
    if first is None:
        raise GeneralistError(f"{name} holds no rows.")
    rows = len(dataset) if hasattr(dataset, "__len__") else None
    return HubTable(name, first.schema, rows, dataset)


class HubSource:
    """Episodes from the rows of a table (see `rows.py`)."""

    is_text = False
    environment: Environment | None = None

    def __init__(
        self,
        name: str,
        columns: Columns | None = None,
        *,
        config: str | None = None,
        split: str | None = None,
    ) -> None:
        self.name = name
        self.notes: list[str] = []
        self._table = open_table(name, config=config, split=split)
        self._rows = Rows(columns or Columns(), self._table.schema, notes=self.notes)
        found = self._rows.columns
        if found.reward is None:
            self.notes.append(NO_REWARDS)
        self.facts: dict[str, Any] = {
            "from": "hub",
            "dataset": name,
            "config": config,
            "split": split,
            "columns": found.to_dict(),
        }
        if isinstance(self._table, ParquetTable):
            self.facts |= order_facts(self._table.files)
        self.total = self._table.rows if self._rows.row_is_episode else None

    def spaces(self) -> tuple[Space, Space] | None:
        """None: a table has types, but no bounds."""
        return None

    def recordings(self, first: int) -> Iterator[Load]:
        """From number `first` on; where a row is a step, the rows before are passed over."""
        if self._rows.row_is_episode:
            yield from self._rows.recordings(self._slices(first, _ROWS_OF_EPISODES))
            return
        loads = self._rows.recordings(self._slices(0, _ROWS_OF_STEPS))
        for number, load in enumerate(loads):
            if number >= first:
                yield load

    def _slices(self, first: int, rows: int) -> Iterator[TableSlice]:
        return self._table.slices(self._rows.names, first=first, rows=rows)
