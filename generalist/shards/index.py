"""The index of a dataset folder: where each episode stands, in a flat file that is memory-mapped.

    episodes            (episodes,) EPISODE_DTYPE
    demonstrations      (n,) int64 episodes an expert played; left out where all are such
    blocks, shards      where a block's members stand in its shard, and what size the shard has
                        (of format 1 without soft labels, of format 2 with)
    instruction_ends    (n,) int64 ends of the distinct instructions within instruction_text
    instruction_text    (bytes,) uint8, UTF-8
    footer              JSON: what manifest this is the index of, counts, and where sections begin
    tail                size of the footer, and the CRC-32 of all before

The first process to open a folder writes it, from the manifest and the records in the shards. A
damaged index, or one of another manifest, is made again. In a folder that cannot be written to, it
is a temporary file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import struct
import tempfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from generalist.shards.files import PARTIAL
from generalist.shards.manifest import Manifest, Member
from generalist.shards.remote import INDEX
from generalist.shards.sample import SUFFIXES, DamagedShard, Sample, open_shard
from generalist.shards.strangers import is_shard_name
from generalist.tokenization.layout import Layout
from generalist.vocabulary import Vocabulary

FORMATS = {1: SUFFIXES[:4], 2: SUFFIXES}
"""Number of what follows to the members of a block; an index of another one is made again.

An index is of the first that serves: older readers know the first alone.
"""

EPISODE_DTYPE = np.dtype(
    [
        ("sample", np.int32),  # which block
        ("instruction", np.int32),  # which of the distinct ones; -1 for none
        ("offset", np.int64),  # first token within the block
        ("length", np.int64),  # tokens
        ("first_step", np.int64),  # steps before it within the block
        ("steps", np.int64),
        ("return", np.float64),
    ]
)
_MEMBER_DTYPE = np.dtype([("offset", np.int64), ("size", np.int64), ("crc32", np.uint32)])
_TAIL = struct.Struct("<IIQ")  # CRC-32, bytes of the footer, magic
_MAGIC = 0x5845444E494E4547
_BY_AGENTS = ("dagger", "reinforcement")  # sources of what an agent did while it learned
_PIECE = 2**20  # bytes, or rows, that are gone through at a time
_ROWS_RESIDENT = 2048  # each may bring in the 64 KiB around it, so about 128 MiB


class EpisodeRow(NamedTuple):
    """A row of EPISODE_DTYPE as Python's own numbers."""

    sample: int
    instruction: int
    offset: int
    length: int
    first_step: int
    steps: int
    return_: float


def ends_of(sizes: np.ndarray) -> array[int]:
    """(n,) sizes to where each ends; 8 bytes each, and found by bisection faster than in numpy."""
    return array("q", np.cumsum(sizes, dtype=np.int64).tobytes())


def _block_dtype(key_bytes: int, members: int) -> np.dtype:
    return np.dtype(
        [
            ("key", f"S{key_bytes}"),
            ("shard", np.int32),
            ("first_episode", np.int64),
            ("tokens", np.int64),
            ("steps", np.int64),
            ("members", _MEMBER_DTYPE, (members,)),  # size -1: it is not there
        ]
    )


def _shard_dtype(name_bytes: int) -> np.dtype:
    return np.dtype([("name", f"S{name_bytes}"), ("bytes", np.int64), ("sha256", "S64")])


class Index:
    """An opened index.

    Attributes:
        episodes: (episodes,) EPISODE_DTYPE, mapped.
        blocks: one row for each block of episodes: key, shard, sizes and members.
        shards: one row for each shard: name, bytes and sha256.
        demonstrations: numbers of the episodes that an expert played.
        counts: episodes, steps, tokens and relabelled steps, as in the manifest.
        fingerprint: 16 hex digits over the content of all shards.
        damaged: one sentence for each sample that was left out.
    """

    def __init__(self, file: Any, footer: dict[str, Any], damaged: list[str]) -> None:
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.damaged = damaged
        self._suffixes = FORMATS[footer["format"]]
        self.counts: dict[str, int] = footer["counts"]
        self.fingerprint: str = footer["fingerprint"]
        dtypes = {
            "episodes": EPISODE_DTYPE,
            "blocks": _block_dtype(footer["key_bytes"], len(self._suffixes)),
            "shards": _shard_dtype(footer["name_bytes"]),
            "instruction_text": np.dtype(np.uint8),
        }
        arrays = {
            name: np.frombuffer(self._map, dtypes.get(name, np.dtype(np.int64)), count, first)
            for name, (first, count) in footer["sections"].items()
        }
        self.episodes = arrays["episodes"]
        self.blocks, self.shards = arrays["blocks"], arrays["shards"]
        self._first_step = self.episodes["first_step"]
        # Episodes up to the end of each block, after a 0.
        counts = np.diff(self.blocks["first_episode"], append=len(self.episodes))
        self._episode_ends = ends_of(np.insert(counts, 0, 0))
        self.instruction_ends = arrays["instruction_ends"]
        self._text = arrays["instruction_text"]
        self.demonstrations: np.ndarray | range = range(len(self.episodes))
        if "demonstrations" in arrays:
            self.demonstrations = arrays["demonstrations"]
        self._rows_read = 0

    def row(self, episode: int) -> EpisodeRow:
        """The place and the size of an episode."""
        self._rows_read += 1
        if self._rows_read >= _ROWS_RESIDENT:
            self.release()
        return EpisodeRow._make(self.episodes[episode].item())

    def episode_at(self, block: int, step: int) -> int:
        """Number of the episode that holds a timestep, which is counted within its block."""
        first, stop = self._episode_ends[block], self._episode_ends[block + 1]
        return first + int(self._first_step[first:stop].searchsorted(step, side="right")) - 1

    def release(self) -> None:
        """Give the pages in memory back: however large the index is, few of them stay."""
        self._rows_read = 0
        self._map.madvise(mmap.MADV_DONTNEED)

    def pieces(self) -> Iterator[np.ndarray]:
        """All rows of `episodes`, some at a time."""
        for first in range(0, len(self.episodes), _PIECE):
            yield self.episodes[first : first + _PIECE]
            self.release()

    def instruction(self, number: int) -> str | None:
        """One of the distinct instructions; None for -1."""
        if number < 0:
            return None
        first = int(self.instruction_ends[number - 1]) if number else 0
        return bytes(self._text[first : int(self.instruction_ends[number])]).decode()

    def members(self, block: int) -> dict[str, Member]:
        """Suffix to member of a block."""
        row = self.blocks[block]
        key = row["key"].decode()
        return {
            suffix: Member(f"{key}.{suffix}", *place)
            for suffix, place in zip(self._suffixes, row["members"].tolist(), strict=True)
            if place[1] >= 0
        }


def open_index(
    folder: Path, *, layout: Layout, vocabulary: Vocabulary, skip_damaged: bool = False
) -> Index:
    """The index of a dataset folder, made first where there is none.

    Args:
        folder: holds the manifest and the shards.
        layout: of the dataset's timesteps.
        vocabulary: of the dataset's tokens.
        skip_damaged: verify every byte of the shards and leave damaged samples out.

    Raises:
        DamagedShard: an index has to be made, and a header or record is damaged.
    """
    if not skip_damaged:
        with contextlib.suppress(OSError):
            with open(folder / INDEX, "rb") as file:
                if (index := _read(file, _manifest_digest(folder))) is not None:
                    return index
        with contextlib.suppress(OSError):  # a folder that cannot be written to, or is full
            return _write_beside(folder, layout, vocabulary)
    with tempfile.TemporaryFile() as file:
        writer = _IndexWriter(
            file, folder, layout=layout, vocabulary=vocabulary, skip_damaged=skip_damaged
        )
        return writer.write()


def _write_beside(folder: Path, layout: Layout, vocabulary: Vocabulary) -> Index:
    """Make an index that is found by the next process to open the folder."""
    # A name of its own, for several processes may be the first; what is left of one that was
    # killed, the next writer of shards removes.
    descriptor, name = tempfile.mkstemp(PARTIAL, INDEX, folder)
    try:
        with open(descriptor, "w+b") as file:
            os.fchmod(descriptor, 0o644)
            index = _IndexWriter(file, folder, layout=layout, vocabulary=vocabulary).write()
        os.replace(name, folder / INDEX)
        return index
    finally:
        Path(name).unlink(missing_ok=True)


def _manifest_digest(folder: Path) -> str | None:
    """sha256 of the manifest's bytes; None where there is none."""
    try:
        with open(folder / "manifest.json", "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _read(file: Any, manifest_digest: str | None) -> Index | None:
    """An index; None where it is damaged, or of another format or manifest.

    It may be a stranger's, so it must name no file but the shards beside it.
    """
    size = file.seek(0, os.SEEK_END)
    if size < _TAIL.size:
        return None
    file.seek(size - _TAIL.size)
    crc, footer_bytes, magic = _TAIL.unpack(file.read(_TAIL.size))
    if magic != _MAGIC or footer_bytes > size - _TAIL.size or _crc(file) != crc:
        return None
    file.seek(size - _TAIL.size - footer_bytes)
    try:
        footer = json.loads(file.read(footer_bytes))
        if footer["format"] not in FORMATS or footer["manifest"] != manifest_digest:
            return None
        index = Index(file, footer, [])
        names = [name.decode("ascii") for name in index.shards["name"].tolist()]
        shards = index.blocks["shard"]
        inside = len(shards) == 0 or 0 <= shards.min() <= shards.max() < len(names)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return None
    return index if inside and all(map(is_shard_name, names)) else None


def _crc(file: Any) -> int:
    """CRC-32 of all but the tail; read, not mapped, so that it takes no memory."""
    left = file.seek(0, os.SEEK_END) - _TAIL.size
    file.seek(0)
    crc = 0
    while left > 0 and (piece := file.read(min(_PIECE, left))):
        crc = zlib.crc32(piece, crc)
        left -= len(piece)
    return crc


class _IndexWriter:
    """Writes an index, block by block."""

    def __init__(
        self,
        file: Any,
        folder: Path,
        *,
        layout: Layout,
        vocabulary: Vocabulary,
        skip_damaged: bool = False,
    ) -> None:
        self._file, self._folder = file, folder
        self._layout, self._vocabulary, self._skip = layout, vocabulary, skip_damaged
        self._sections: dict[str, tuple[int, int]] = {}
        self._episodes = 0
        self._corrections: list[np.ndarray] = []  # where an agent played and was corrected
        self._instructions: dict[str, int] = {}
        self._blocks: list[tuple[Any, ...]] = []
        self._members: list[dict[str, Member]] = []  # of each block
        self._damaged: list[str] = []

    def write(self) -> Index:
        """Write all sections, footer and tail, and map them."""
        digest = _manifest_digest(self._folder)  # first, so that a later change shows
        manifest = Manifest.read(self._folder)
        first = self._file.tell()
        for number, entry in enumerate(manifest.shards):
            members = entry.samples()
            for sample in open_shard(
                self._folder, entry, layout=self._layout, vocabulary=self._vocabulary
            ):
                try:
                    if isinstance(sample, DamagedShard):
                        raise sample
                    if self._skip:
                        sample.verify()
                except DamagedShard as error:
                    if not self._skip:
                        raise
                    self._damaged.append(str(error))
                else:
                    self._add(sample, number, members[sample.key])
        self._sections["episodes"] = first, self._episodes
        if self._corrections:
            self._section("demonstrations", self._demonstrations())
        key_bytes = max([1, *(len(block[0]) for block in self._blocks)])
        found = {suffix for members in self._members for suffix in members}
        number = next(each for each, suffixes in FORMATS.items() if found <= set(suffixes))
        self._section("blocks", self._block_rows(key_bytes, FORMATS[number]))
        shards = [(e.name.encode(), e.bytes, e.sha256.encode()) for e in manifest.shards]
        name_bytes = max([1, *(len(shard[0]) for shard in shards)])
        self._section("shards", np.array(shards, _shard_dtype(name_bytes)))
        texts = [text.encode() for text in self._instructions]
        self._section("instruction_ends", np.cumsum([len(text) for text in texts], dtype=np.int64))
        self._section("instruction_text", np.frombuffer(b"".join(texts), np.uint8))
        footer = {
            "format": number,
            "manifest": digest,
            "fingerprint": manifest.fingerprint,
            "counts": manifest.counts(),
            "key_bytes": key_bytes,
            "name_bytes": name_bytes,
            "sections": self._sections,
        }
        written = json.dumps(footer).encode()
        self._file.write(written + bytes(_TAIL.size))
        crc = _crc(self._file)
        self._file.seek(-_TAIL.size, os.SEEK_END)
        self._file.write(_TAIL.pack(crc, len(written), _MAGIC))
        self._file.flush()
        return Index(self._file, footer, self._damaged)

    def _add(self, sample: Sample, shard: int, members: dict[str, Member]) -> None:
        """Write the rows of a block's episodes."""
        records = sample.records
        rows = np.zeros(len(records), EPISODE_DTYPE)
        rows["sample"] = len(self._blocks)
        for name in ("offset", "length", "steps", "return"):
            rows[name] = [record[name] for record in records]
        rows["first_step"] = np.cumsum(rows["steps"]) - rows["steps"]
        rows["instruction"] = [self._number_of(r.get("instruction")) for r in records]
        self._file.write(rows.tobytes())
        # What an agent did while it learned is no demonstration.
        corrected = np.array([record.get("source") in _BY_AGENTS for record in records], bool)
        if corrected.any():
            self._corrections.append(self._episodes + np.flatnonzero(corrected))
        sizes = sample.size_tokens, sample.size_steps
        self._blocks.append((sample.key.encode(), shard, self._episodes, *sizes))
        self._members.append(members)
        self._episodes += len(records)

    def _block_rows(self, key_bytes: int, suffixes: Sequence[str]) -> np.ndarray:
        absent = Member("", 0, -1, 0)
        rows = []
        for block, members in zip(self._blocks, self._members, strict=True):
            places = [members.get(suffix, absent) for suffix in suffixes]
            rows.append((*block, [(each.offset, each.size, each.crc32) for each in places]))
        return np.array(rows, _block_dtype(key_bytes, len(suffixes)))

    def _number_of(self, instruction: str | None) -> int:
        if instruction is None:
            return -1
        return self._instructions.setdefault(instruction, len(self._instructions))

    def _demonstrations(self) -> np.ndarray:
        """(n,) int64 episodes that are no corrections."""
        keep = np.ones(self._episodes, bool)
        keep[np.concatenate(self._corrections)] = False
        return np.flatnonzero(keep)

    def _section(self, name: str, array: np.ndarray) -> None:
        """Write a section, from a multiple of 64 bytes on."""
        self._file.write(bytes(-self._file.tell() % 64))
        self._sections[name] = self._file.tell(), len(array)
        self._file.write(array.tobytes())
