"""Hugging Face `datasets`: a repository, a folder of `save_to_disk`, or parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.errors import GeneralistError, UsageError
from generalist.importing.rows import NO_REWARDS, Columns, Rows
from generalist.importing.source import Load
from generalist.network import reaching

if TYPE_CHECKING:
    from gymnasium.spaces import Space

_ROWS_OF_EPISODES = 8  # read at once; each may be thousands of steps
_ROWS_OF_STEPS = 4096


@dataclass
class Table:
    """A dataset of the package `datasets`, of which only what is asked for is read."""

    name: str
    schema: Any  # pyarrow.Schema
    rows: int | None
    dataset: Any

    def batches(self, columns: list[str], first: int, rows: int) -> Iterator[Any]:
        """pyarrow tables of `rows` rows each, from row `first` on."""
        chosen = self.dataset.select_columns(columns)
        if first:
            there_is_more = self.rows is None or first < self.rows
            if not there_is_more:
                return
            chosen = chosen.skip(first)
        with reaching(self.name):
            yield from chosen.with_format("arrow").iter(batch_size=rows)


def open_table(name: str, config: str | None = None, split: str | None = None) -> Table:
    """Open a repository `owner/name`, a folder of `save_to_disk`, or parquet files or their folder.

    split: needed where there are several. Nothing but Arrow, parquet and what `datasets` reads
    without running or unpickling anything is opened.
    """
    path = Path(name)
    if (path / "state.json").is_file():
        return _table(name, _from_disk(path))
    if (path / "dataset_dict.json").is_file():
        return _table(name, _from_disk(_split_folder(path, split)))
    if path.exists():
        files = sorted(map(str, path.rglob("*.parquet"))) if path.is_dir() else [name]
        if not files or not files[0].endswith(".parquet"):
            raise UsageError(
                f"{name} is neither a folder of `save_to_disk` nor one with parquet files, "
                "nor such a file."
            )
        return _table(name, _loaded(name, "parquet", data_files=files, split="train"))
    if path.is_absolute() or name.count("/") != 1:
        raise UsageError(f"{name} is no file or folder here, and no repository is named like that.")
    return _table(name, _repository(name, config, split))


def _from_disk(path: Path) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise GeneralistError(f"{path} cannot be read as a saved dataset: {error}.") from error


def _split_folder(path: Path, split: str | None) -> Path:
    from generalist.shards.files import read_json

    return path / _one_of(str(path), read_json(path / "dataset_dict.json")["splits"], split)


def _repository(name: str, config: str | None, split: str | None) -> Any:
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
    return _loaded(name, name, config, split=_one_of(name, splits, split))


def _one_of(name: str, splits: list[str], split: str | None) -> str:
    if split is None:
        split = splits[0] if len(splits) == 1 else "train"
    if split not in splits:
        raise UsageError(f"{name} has no split {split!r}; it has {', '.join(splits)}: see --split.")
    return split


def _loaded(name: str, *arguments: Any, **options: Any) -> Any:
    import datasets

    with reaching(name):
        return datasets.load_dataset(*arguments, streaming=True, **options)


def _table(name: str, dataset: Any) -> Table:
    with reaching(name):
        first = next(iter(dataset.with_format("arrow").iter(batch_size=1)), None)
    if first is None:
        raise GeneralistError(f"{name} holds no rows.")
    rows = len(dataset) if hasattr(dataset, "__len__") else None
    return Table(name, first.schema, rows, dataset)


class HubSource:
    """Episodes from the rows of a table (see `rows.py`)."""

    is_text = False

    def __init__(
        self,
        name: str,
        columns: Columns | None = None,
        config: str | None = None,
        split: str | None = None,
    ) -> None:
        self.name = name
        self._table = open_table(name, config, split)
        self._rows = Rows(columns or Columns(), self._table.schema)
        found = self._rows.columns
        self.notes = [] if found.reward else [NO_REWARDS]
        self.facts = {"from": "hub", "dataset": name, "config": config, "split": split,
                      "columns": found.to_dict()}  # fmt: skip
        self.total = self._table.rows if self._rows.row_is_episode else None

    def spaces(self) -> tuple[Space, Space] | None:
        """None: a table has types, but no bounds."""
        return None

    def recordings(self, first: int) -> Iterator[Load]:
        """From number `first` on; where a row is a step, the rows before are passed over."""
        names = self._rows.columns.names
        if self._rows.row_is_episode:
            yield from self._rows.recordings(self._table.batches(names, first, _ROWS_OF_EPISODES))
            return
        loads = self._rows.recordings(self._table.batches(names, 0, _ROWS_OF_STEPS))
        for number, load in enumerate(loads):
            if number >= first:
                yield load
