"""Read a dataset folder by memory map, and notice when it is not what was written.

Memory does not grow with the data: rows of the index and records are read when they are asked for,
and only some shards are mapped at a time (`MAPPED_BYTES`).
"""

from __future__ import annotations

import copy
import itertools
import mmap
import os
import weakref
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np

from generalist.errors import GeneralistError
from generalist.shards.index import EpisodeRow, Index, ends_of, open_index
from generalist.shards.manifest import DatasetHeader, Manifest
from generalist.shards.remote import Remote
from generalist.shards.sample import ALL_VERIFIED, DamagedShard, Sample, map_shard, open_shard
from generalist.vocabulary import Vocabulary, fingerprint_of

MAPPED_BYTES = 2**28
"""Shards mapped at a time, over all datasets of a process; the one in use is always."""


class _Fingerprinted(Protocol):
    """The part of a processor that is needed here."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    def fingerprint_under(self, vocabulary: Vocabulary) -> str: ...


@dataclass
class _MappedShard:
    """A shard in memory, and those of its blocks that were asked for."""

    file: mmap.mmap | bytes
    samples: dict[int, Sample] = field(default_factory=dict)


class _MappedShards:
    """An LRU cache of mapped shards, over all datasets.

    An array that was read from a shard keeps it mapped for as long as the array is kept.
    """

    def __init__(self) -> None:
        self._shards: OrderedDict[tuple[int, int], _MappedShard] = OrderedDict()

    def get(self, key: tuple[int, int]) -> _MappedShard | None:
        """The shard `key`, a number of a dataset and one of a shard, if it is mapped."""
        found = self._shards.get(key)
        if found is not None:
            try:
                self._shards.move_to_end(key)
            except KeyError:  # another thread has just let go of it
                pass
        return found

    def add(self, key: tuple[int, int], shard: _MappedShard) -> None:
        """Keep a shard; evicts the least recently used shards when the cache is full."""
        self._shards[key] = shard
        total = sum(len(other.file) for other in list(self._shards.values()))
        while total > MAPPED_BYTES and len(self._shards) > 1:
            total -= len(self._shards.popitem(last=False)[1].file)

    def forget(self, dataset: int) -> None:
        """Evict a dataset's shards."""
        for key in [key for key in list(self._shards) if key[0] == dataset]:
            self._shards.pop(key, None)


_mapped = _MappedShards()
_datasets = itertools.count()


class _Lazy(Sequence[Any]):
    """A sequence whose items are made when they are asked for."""

    def __init__(self, size: int, item: Any) -> None:
        self._size, self._item = size, item

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        """One item, or a list of them."""
        if isinstance(index, slice):
            return [self._item(i) for i in range(self._size)[index]]
        return self._item(range(self._size)[index])


class TaskData:
    """The episodes of one task, read from its dataset folder.

    Args:
        folder: holds dataset.json, manifest.json and the shards.
        processor: the one in use; its fingerprints are compared with the data's.
        skip_damaged: verify everything now, leave damaged samples out, and list them in `damaged`.

    Raises:
        GeneralistError: a JSON file is missing or damaged, or the data were written with another
            processor. Ranges that were appended to a vocabulary since make no other processor.
        DamagedShard: a shard is missing or of another size. Other damage is found, and raised,
            when a block is first used.
    """

    def __init__(
        self,
        folder: str | Path,
        processor: _Fingerprinted | None = None,
        *,
        skip_damaged: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self._processor, self._skip_damaged = processor, skip_damaged
        self.header = DatasetHeader.read(self.folder)
        self.layout, self.vocabulary = self.header.parts(self.folder)
        if processor is not None:
            self._check(processor)
        self.task = self.header.task
        self.index = open_index(
            self.folder,
            layout=self.layout,
            vocabulary=self.vocabulary,
            skip_damaged=skip_damaged,
        )
        self.damaged = self.index.damaged
        self._remote = Remote.of(self.folder)
        if not skip_damaged and self._remote is None:
            self._check_sizes(self.index)
        # Flags of each block; a byte for some megabytes of data is all that grows with them.
        self._verified = np.full(len(self.index.blocks), skip_damaged * ALL_VERIFIED, np.uint8)
        self._shard_of = self.index.blocks["shard"]
        self._number = next(_datasets)
        weakref.finalize(self.index, _mapped.forget, self._number)
        self._records: tuple[int, list[dict[str, Any]]] = -1, []  # of the block read last
        self._selected: np.ndarray | None = None  # numbers among all episodes; None for all
        # Steps up to the end of each block, or of each episode of a selection.
        self._step_ends = ends_of(self.index.blocks["steps"])

    def _check(self, processor: _Fingerprinted) -> None:
        """Ranges that were appended to the vocabulary since change no token that is here."""
        same, ours = processor.vocabulary, self.vocabulary
        if same != ours and same.begins_with(ours):
            fingerprints = ours.fingerprint, processor.fingerprint_under(ours)
        else:
            fingerprints = same.fingerprint, processor.fingerprint
        self.header.check(self.folder, *fingerprints)

    def _check_sizes(self, index: Index) -> None:
        """Raise DamagedShard unless each shard has the size that it was written with."""
        for name, size, _ in index.shards:
            path = self.folder / name.decode()
            try:
                if path.stat().st_size == size:
                    continue
            except OSError:
                pass
            self._raise_damage(path)

    def _raise_damage(self, path: Path) -> None:
        """Raise DamagedShard with the reason, and the sample at fault."""
        entry = next(each for each in self.manifest.shards if each.name == path.name)
        for sample in open_shard(
            self.folder, entry, layout=self.layout, vocabulary=self.vocabulary
        ):
            if isinstance(sample, DamagedShard):
                raise sample

    @property
    def manifest(self) -> Manifest:
        """Read anew at each use, for it grows with the data."""
        return Manifest.read(self.folder)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the content of all shards, and which of their episodes these are."""
        if self._selected is None:
            return self.index.fingerprint
        return fingerprint_of([self.index.fingerprint, self._selected.tolist()])

    @property
    def episodes(self) -> np.ndarray:
        """(episodes,) EPISODE_DTYPE: mapped, or a copy of the rows of a selection."""
        rows = self.index.episodes
        return rows if self._selected is None else rows[self._selected]

    def pieces(self) -> Iterator[np.ndarray]:
        """All rows of `episodes`, some at a time, so that few of them are in memory."""
        if self._selected is None:
            yield from self.index.pieces()
        else:
            yield self.episodes

    @property
    def demonstrations(self) -> np.ndarray | range:
        """Numbers of the episodes that are no corrections of what an agent did."""
        among_all = self.index.demonstrations
        if isinstance(among_all, range):
            return range(len(self))
        if self._selected is None:
            return among_all
        return np.flatnonzero(np.isin(self._selected, among_all))

    def select(self, episodes: np.ndarray) -> TaskData:
        """The same data with some of its episodes alone, by their numbers and in that order.

        Their numbers and lengths are kept in memory, 16 bytes an episode.
        """
        chosen = copy.copy(self)
        before = self._selected
        chosen._selected = np.asarray(episodes, np.int64) if before is None else before[episodes]
        chosen._step_ends = ends_of(chosen.episodes["steps"])
        return chosen

    def _number_of(self, index: int) -> int:
        """Number of an episode among all of the folder."""
        index = range(len(self))[index]
        return index if self._selected is None else int(self._selected[index])

    def row(self, index: int) -> EpisodeRow:
        """The place and the size of an episode."""
        return self.index.row(index if self._selected is None else self._number_of(index))

    @property
    def steps(self) -> int:
        """Timesteps of all episodes."""
        return self._step_ends[-1] if self._step_ends else 0

    def episode_at(self, step: int) -> int:
        """Number of the episode that holds a timestep, which is counted over all episodes."""
        number = bisect_right(self._step_ends, step)
        if self._selected is not None:
            return number
        return self.index.episode_at(number, step - self._step_ends[number - 1] * (number > 0))

    @property
    def samples(self) -> Sequence[Sample]:
        """All blocks, opened when asked for."""
        return _Lazy(len(self.index.blocks), self.sample)

    @property
    def records(self) -> Sequence[dict[str, Any]]:
        """Facts of all episodes, read when asked for."""
        return _Lazy(len(self), self.record)

    def __len__(self) -> int:
        return len(self.index.episodes if self._selected is None else self._selected)

    def __reduce__(self) -> tuple[Any, ...]:
        # A map is not pickled but opened again.
        return _reopen, (self.folder, self._processor, self._skip_damaged, self._selected)

    def sample(self, number: int) -> Sample:
        """A block of episodes."""
        shard_number = int(self._shard_of[number])
        shard = _mapped.get((self._number, shard_number))
        if shard is None:
            shard = self._map_shard(shard_number)
        found = shard.samples.get(number)
        if found is None:
            found = shard.samples[number] = self._open_sample(number, shard_number, shard)
        return found

    def _map_shard(self, number: int) -> _MappedShard:
        _, size, sha256 = self.index.shards[number]
        path = self._path(number)
        promised = {"size": int(size), "sha256": sha256.decode()}
        shard = _MappedShard(map_shard(path, **promised, remote=self._remote))
        _mapped.add((self._number, number), shard)
        return shard

    def _path(self, shard: int) -> Path:
        return self.folder / self.index.shards["name"][shard].decode()

    def _open_sample(self, number: int, shard_number: int, shard: _MappedShard) -> Sample:
        row = self.index.blocks[number]
        return Sample(
            self._path(shard_number),
            row["key"].decode(),
            members=self.index.members(number),
            file=shard.file,
            dtype=self.vocabulary.dtype,
            layout=self.layout,
            sizes=(int(row["tokens"]), int(row["steps"])),
            verified=self._verified[number : number + 1],
        )

    def record(self, index: int) -> dict[str, Any]:
        """Facts of an episode: seed, expert, return, instruction, ..."""
        episode = self._number_of(index)
        number = int(self.index.episodes["sample"][episode])
        first = int(self.index.blocks["first_episode"][number])
        found, records = self._records
        if found != number:
            records = self.sample(number).read_records()
            self._records = number, records
        return records[episode - first]

    def tokens(self, index: int) -> np.ndarray:
        """(T * tokens_per_timestep,) ids of an episode, a view of the mapped file."""
        return self.tokens_of(self.row(index))

    def tokens_of(self, row: EpisodeRow) -> np.ndarray:
        """`tokens` of the episode that stands there."""
        return self.sample(row.sample).tokens[row.offset : row.offset + row.length]

    def rewards(self, index: int) -> np.ndarray:
        """(T,) float32 raw rewards of an episode."""
        row = self.row(index)
        return self.sample(row.sample).rewards[row.first_step : row.first_step + row.steps]

    def labels(self, index: int) -> np.ndarray | None:
        """(T * k,) ids of the expert's actions; None where all are the executed ones."""
        return self.labels_of(self.row(index))

    def labels_of(self, row: EpisodeRow) -> np.ndarray | None:
        """`labels` of the episode that stands there."""
        labels, k = self.sample(row.sample).labels, len(self.layout.legal)
        first = row.first_step * k
        return None if labels is None else labels[first : first + row.steps * k]


def _reopen(
    folder: Path,
    processor: _Fingerprinted | None,
    skip_damaged: bool,
    selected: np.ndarray | None,
) -> TaskData:
    data = TaskData(folder, processor, skip_damaged=skip_damaged)
    return data if selected is None else data.select(selected)


def dataset_folders(root: str | Path, *, may_be_none: bool = False) -> list[Path]:
    """The dataset folders at or below `root`, sorted; links are followed, each folder found once.

    Raises GeneralistError where there is none, unless there `may_be_none`, and where a folder
    cannot be listed or a link leads nowhere: what is left out without a word is missed by nobody.
    """
    root = Path(root)
    folders: list[Path] = []
    seen: set[str] = set()  # a link may lead back up, or to what is found elsewhere
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        is_dataset = (folder / "dataset.json").is_file()
        if is_dataset:
            folders.append(folder)
        # Depth first, in the order of names. What a dataset's own links hold, its manifest knows.
        waiting += reversed(_subfolders(folder, skip_dangling=is_dataset))
    if not folders and not may_be_none:
        raise GeneralistError(
            f"{root} holds no dataset (no dataset.json below it); "
            "make one with `generalist collect`."
        )
    return sorted(folders)


def _subfolders(folder: Path, *, skip_dangling: bool) -> list[Path]:
    """The folders in a folder, linked ones too, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise GeneralistError(f"{folder} cannot be listed: {error.strerror}.") from error
    for entry in found:
        dangling = entry.is_symlink() and not os.path.exists(entry.path)
        if dangling and not skip_dangling and not entry.name.startswith("."):
            raise GeneralistError(
                f"{entry.path} is a link to {os.readlink(entry.path)}, which is not there; "
                "mend the link or remove it."
            )
    return [Path(entry.path) for entry in found if entry.is_dir()]
