"""Read a dataset folder by memory map, and notice when it is not what was written.

Cheap checks happen at opening (sizes, tar and npy headers, the episode records), the checksum of
a member when it is first used, everything in `validate`. webdataset alone returns half a damaged
shard without a word; here damage is an error that names shard and sample.
"""

from __future__ import annotations

import functools
import io
import json
import mmap
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from generalist.data.manifest import DatasetHeader, Manifest, Member, ShardEntry
from generalist.errors import GeneralistError
from generalist.tokenization.layout import Layout
from generalist.vocabulary import Vocabulary

_TAR_BLOCK = 512
_ARRAYS = ("tokens.npy", "rewards.npy", "labels.npy")

EPISODE_DTYPE = np.dtype(
    [
        ("sample", np.int32),  # which block
        ("offset", np.int64),  # first token within the block
        ("length", np.int64),  # tokens
        ("first_step", np.int64),  # steps before it within the block
        ("steps", np.int64),
        ("return", np.float64),
    ]
)


class DamagedShard(GeneralistError):
    """A shard that is not what the manifest says."""

    def __init__(self, shard: Path, sample: str | None, reason: str) -> None:
        where = f"Shard {shard}" + (f", sample {sample}" if sample else "")
        super().__init__(
            f"{where} is damaged: {reason}. Go on without it with --skip-damaged "
            "(skip_damaged=True), or delete the folder of this task and collect it again."
        )


class _Fingerprinted(Protocol):
    """What a processor shows here."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    def fingerprint_under(self, vocabulary: Vocabulary) -> str: ...


class Sample:
    """One block of episodes: arrays over the mapped file, each verified when first used."""

    def __init__(
        self,
        shard: Path,
        key: str,
        members: dict[str, Member],
        file: mmap.mmap | bytes,
        dtype: np.dtype,
        layout: Layout,
    ) -> None:
        self.shard, self.key = shard, key
        self._members, self._file, self._dtype = members, file, dtype
        wanted = {"tokens.npy", "episodes.json"} | (
            {"rewards.npy"} - {layout.is_document * "rewards.npy"}
        )
        if missing := wanted - set(members):
            raise self._damaged(f"{', '.join(sorted(missing))} is missing")
        if unknown := set(members) - wanted - {"labels.npy"}:
            raise self._damaged(f"{', '.join(sorted(unknown))} does not belong there")
        for member in members.values():
            self._check_header(member)
        self.records = self._read_records()
        steps = sum(record["steps"] for record in self.records)
        tokens = sum(record["length"] for record in self.records)
        self._sizes = {
            "tokens.npy": tokens,
            "rewards.npy": steps,
            "labels.npy": steps * layout.action_tokens,
        }
        if tokens != steps * layout.tokens_per_timestep:
            raise self._damaged(f"{tokens} tokens are not {steps} timesteps")
        for suffix in set(members) & set(_ARRAYS):
            self._view(suffix)

    def _damaged(self, reason: str) -> DamagedShard:
        return DamagedShard(self.shard, self.key, reason)

    def _check_header(self, member: Member) -> None:
        """The 512 bytes before the payload must be the tar header of this member."""
        stop = member.offset + member.size
        if stop > len(self._file):
            raise self._damaged(
                f"the file ends at byte {len(self._file)}, within or before {member.name}"
            )
        raw = self._file[member.offset - _TAR_BLOCK : member.offset]
        try:
            info = tarfile.TarInfo.frombuf(raw, tarfile.ENCODING, "surrogateescape")
        except tarfile.HeaderError as error:
            raise self._damaged(f"the tar header of {member.name} is broken ({error})") from error
        if (info.name, info.size) != (member.name, member.size):
            raise self._damaged(
                f"the manifest promises {member.name} of {member.size} bytes, "
                f"the tar holds {info.name} of {info.size}"
            )

    def _payload(self, suffix: str) -> memoryview:
        member = self._members[suffix]
        return memoryview(self._file)[member.offset : member.offset + member.size]

    def _verify(self, suffix: str) -> None:
        if zlib.crc32(self._payload(suffix)) != self._members[suffix].crc32:
            raise self._damaged(f"the checksum of {self._members[suffix].name} is wrong")

    def verify(self) -> None:
        """Check every member's checksum now; raises DamagedShard."""
        for suffix in self._members:
            self._verify(suffix)

    def _read_records(self) -> list[dict[str, Any]]:
        self._verify("episodes.json")
        return json.loads(bytes(self._payload("episodes.json")))

    def _view(self, suffix: str) -> np.ndarray:
        """The array of a .npy member, without a copy and without a checksum."""
        payload = self._payload(suffix)
        header = io.BytesIO(bytes(payload[:_TAR_BLOCK]))
        dtype = np.dtype(np.float32) if suffix == "rewards.npy" else self._dtype
        try:
            if np.lib.format.read_magic(header) != (1, 0):
                raise ValueError("not npy version 1.0")
            shape, fortran, found = np.lib.format.read_array_header_1_0(header)
        except ValueError as error:
            raise self._damaged(f"the npy header of {suffix} is broken ({error})") from error
        if fortran or found != dtype or shape != (self._sizes[suffix],):
            raise self._damaged(
                f"{suffix} is {found}{shape}, expected {dtype}({self._sizes[suffix]},)"
            )
        if header.tell() + self._sizes[suffix] * dtype.itemsize != len(payload):
            raise self._damaged(f"{suffix} does not have the length its header says")
        return np.frombuffer(payload, dtype, self._sizes[suffix], header.tell())

    def _array(self, suffix: str) -> np.ndarray:
        view = self._view(suffix)
        self._verify(suffix)
        return view

    @functools.cached_property
    def tokens(self) -> np.ndarray:
        """(tokens,) ids of the block."""
        return self._array("tokens.npy")

    @functools.cached_property
    def rewards(self) -> np.ndarray:
        """(steps,) float32; zeros for documents."""
        if "rewards.npy" not in self._members:
            return np.zeros(self._sizes["rewards.npy"], np.float32)
        return self._array("rewards.npy")

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """(steps * k,) ids, or None where every label is the executed action."""
        return self._array("labels.npy") if "labels.npy" in self._members else None


class TaskData:
    """The episodes of one task, read from its dataset folder.

    With `processor`, raises GeneralistError unless the data was written with its fingerprints, or
    those it had before ranges were appended to its vocabulary.
    With `skip_damaged`, everything is verified at opening, samples that are damaged are left
    out, and `damaged` says which; without it damage raises DamagedShard.
    """

    def __init__(
        self,
        folder: str | Path,
        processor: _Fingerprinted | None = None,
        skip_damaged: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self._arguments = (folder, processor, skip_damaged)
        self.header = DatasetHeader.read(self.folder)
        self.vocabulary = Vocabulary.from_dict(self.header.vocabulary)
        if processor is not None:
            self._check(processor)
        self.task = self.header.task
        self.layout = Layout.from_dict(self.header.layout)
        self.manifest = Manifest.read(self.folder)
        self.damaged: list[str] = []
        self.samples: list[Sample] = []
        for entry in self.manifest.shards:
            for found in open_shard(self.folder, entry, self.layout, self.vocabulary):
                try:
                    if isinstance(found, DamagedShard):
                        raise found
                    if skip_damaged:
                        found.verify()
                except DamagedShard as error:
                    if not skip_damaged:
                        raise
                    self.damaged.append(str(error))
                else:
                    self.samples.append(found)
        self.records = [record for sample in self.samples for record in sample.records]
        self.episodes = self._index()

    def _check(self, processor: _Fingerprinted) -> None:
        """Ranges that were appended to the vocabulary since change no token that is here."""
        same, ours = processor.vocabulary, self.vocabulary
        if same != ours and same.begins_with(ours):
            fingerprints = ours.fingerprint, processor.fingerprint_under(ours)
        else:
            fingerprints = same.fingerprint, processor.fingerprint
        self.header.check(self.folder, *fingerprints)

    def _index(self) -> np.ndarray:
        """(episodes,) EPISODE_DTYPE."""
        rows = []
        for number, sample in enumerate(self.samples):
            step = 0
            for record in sample.records:
                key = (record["offset"], record["length"], step, record["steps"], record["return"])
                rows.append((number, *key))
                step += record["steps"]
        return np.array(rows, dtype=EPISODE_DTYPE)

    def __len__(self) -> int:
        return len(self.episodes)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments  # a map is not pickled but opened again

    def record(self, index: int) -> dict[str, Any]:
        """Facts of an episode: seed, expert, return, instruction, ..."""
        return self.records[index]

    def tokens(self, index: int) -> np.ndarray:
        """(T * tokens_per_timestep,) ids of an episode, a view of the mapped file."""
        row = self.episodes[index]
        offset = row["offset"]
        return self.samples[row["sample"]].tokens[offset : offset + row["length"]]

    def rewards(self, index: int) -> np.ndarray:
        """(T,) float32 raw rewards of an episode."""
        row = self.episodes[index]
        first = row["first_step"]
        return self.samples[row["sample"]].rewards[first : first + row["steps"]]

    def labels(self, index: int) -> np.ndarray | None:
        """(T * k,) ids of the expert's actions; None where all are the executed ones."""
        row = self.episodes[index]
        labels = self.samples[row["sample"]].labels
        k = self.layout.action_tokens
        first = row["first_step"] * k
        return None if labels is None else labels[first : first + row["steps"] * k]


def open_shard(
    folder: Path, entry: ShardEntry, layout: Layout, vocabulary: Vocabulary
) -> Iterator[Sample | DamagedShard]:
    """The samples of a shard in order; in place of a damaged one, the error that says so."""
    path = folder / entry.name
    groups: dict[str, dict[str, Member]] = {}
    for member in entry.members:
        key, _, suffix = member.name.partition(".")
        groups.setdefault(key, {})[suffix] = member
    file: mmap.mmap | bytes
    try:
        with open(path, "rb") as handle:
            size = handle.seek(0, io.SEEK_END)
            file = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        yield DamagedShard(path, None, f"it cannot be opened ({error.strerror})")
        return
    damaged = 0
    for key, members in groups.items():
        try:
            yield Sample(path, key, members, file, vocabulary.dtype, layout)
        except DamagedShard as error:
            damaged += 1
            yield error
    if size != entry.bytes and not damaged:
        yield DamagedShard(path, None, f"it has {size} bytes, the manifest says {entry.bytes}")


def dataset_folders(root: str | Path) -> list[Path]:
    """The dataset folders at or below `root`, sorted; raises GeneralistError where none is."""
    root = Path(root)
    folders = sorted(path.parent for path in root.rglob("dataset.json"))
    if not folders:
        raise GeneralistError(
            f"{root} holds no dataset (no dataset.json below it); "
            "make one with `generalist collect`."
        )
    return folders
