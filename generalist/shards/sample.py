"""One block of episodes in a shard, verified: damage is an error that names shard and sample.

webdataset alone returns half a damaged shard without a word. Here headers and records are checked
when a block is first used, and the checksum of an array when that is first used. `validate` checks
everything.
"""

from __future__ import annotations

import functools
import io
import mmap
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from generalist.errors import GeneralistError
from generalist.integrity import parse_json
from generalist.shards.manifest import TAR_BLOCK_BYTES, Member, ShardEntry
from generalist.shards.remote import Remote
from generalist.shards.soft_labels import SoftLabels, problem_of, soft_label_dtype
from generalist.tokenization.layout import Layout
from generalist.vocabulary import Vocabulary

SOFT_LABELS = "soft_labels.npy"
SUFFIXES = ("tokens.npy", "rewards.npy", "labels.npy", "episodes.json", SOFT_LABELS)
_ARRAYS = SUFFIXES[:3]  # whose lengths follow from the steps
_NPY_HEADER_BYTES = 512  # more than the header of a flat array takes
_ATTEMPTS = 5  # to open a shard that was downloaded
_HEADERS = 1 << len(SUFFIXES)  # flag beside those of the members, 1 << their place in SUFFIXES
ALL_VERIFIED = 2 * _HEADERS - 1


class DamagedShard(GeneralistError):
    """A shard that differs from its manifest."""

    def __init__(self, shard: Path, sample: str | None, reason: str) -> None:
        where = f"Shard {shard}" + (f", sample {sample}" if sample else "")
        super().__init__(
            f"{where} is damaged: {reason}. Go on without it with --skip-damaged "
            "(skip_damaged=True), or delete the folder of this task and collect it again."
        )


class Sample:
    """One block of episodes: arrays over the mapped file, each verified when first used.

    Args:
        shard: path of the tar, for errors.
        key: of the sample, the first part of its members' names.
        members: by suffix, where each stands in the file.
        file: the mapped shard.
        dtype: of the tokens.
        layout: of a timestep.
        sizes: (tokens, steps) of the block; None reads its records for them.
        verified: (1,) uint8, flags of the checks that are done; shared, so that a block that is
            opened again is not checked again.

    Raises:
        DamagedShard: a header or the records are damaged, or disagree.
    """

    def __init__(
        self,
        shard: Path,
        key: str,
        *,
        members: dict[str, Member],
        file: mmap.mmap | bytes,
        dtype: np.dtype,
        layout: Layout,
        sizes: tuple[int, int] | None = None,
        verified: np.ndarray | None = None,
    ) -> None:
        self.shard, self.key = shard, key
        self._members, self._file, self._dtype, self._layout = members, file, dtype, layout
        self._verified = np.zeros(1, np.uint8) if verified is None else verified
        for member in members.values():  # always: a file may have been cut since it was verified
            self._check_end(member)
        fresh = not self._verified[0] & _HEADERS
        if fresh:
            self._check_members()
        if sizes is None:
            records = self.records
            sizes = sum(r["length"] for r in records), sum(r["steps"] for r in records)
        self.size_tokens, self.size_steps = sizes
        self._sizes = dict(zip(_ARRAYS, (*sizes, self.size_steps * len(layout.legal)), strict=True))
        if fresh:
            if self.size_tokens != self.size_steps * layout.tokens_per_timestep:
                raise self._damaged(f"{sizes[0]} tokens are not {sizes[1]} timesteps")
            for suffix in set(members) & {*_ARRAYS, SOFT_LABELS}:
                self._check_array_header(suffix)
            self._verified |= _HEADERS

    def _damaged(self, reason: str) -> DamagedShard:
        return DamagedShard(self.shard, self.key, reason)

    def _check_members(self) -> None:
        """Raise unless all members are there, with the tar headers they should have."""
        members = self._members
        wanted = {"tokens.npy", "episodes.json"} | (
            {"rewards.npy"} - {self._layout.is_document * "rewards.npy"}
        )
        if missing := wanted - set(members):
            raise self._damaged(f"{', '.join(sorted(missing))} is missing")
        if unknown := set(members) - wanted - {"labels.npy", SOFT_LABELS}:
            raise self._damaged(f"{', '.join(sorted(unknown))} does not belong there")
        for member in members.values():
            self._check_header(member)
        self._verify("episodes.json")

    def _check_end(self, member: Member) -> None:
        if member.offset + member.size > len(self._file):
            raise self._damaged(
                f"the file ends at byte {len(self._file)}, within or before {member.name}"
            )

    def _check_header(self, member: Member) -> None:
        """The 512 bytes before the payload must be the tar header of this member."""
        raw = self._file[member.offset - TAR_BLOCK_BYTES : member.offset]
        try:
            info = tarfile.TarInfo.frombuf(raw, tarfile.ENCODING, "surrogateescape")
        except tarfile.HeaderError as error:
            raise self._damaged(f"the tar header of {member.name} is broken ({error})") from error
        if (info.name, info.size) != (member.name, member.size):
            raise self._damaged(
                f"the manifest promises {member.name} of {member.size} bytes, "
                f"the tar holds {info.name} of {info.size}"
            )

    def _check_array_header(self, suffix: str) -> None:
        """The .npy header must say what the records do."""
        payload, dtype = self._payload(suffix), self._dtype_of(suffix)
        count = self._count_of(suffix)
        header = io.BytesIO(bytes(payload[:_NPY_HEADER_BYTES]))
        try:
            if np.lib.format.read_magic(header) != (1, 0):
                raise ValueError("not npy version 1.0")
            shape, fortran, found = np.lib.format.read_array_header_1_0(header)
        except Exception as error:  # numpy parses it as Python, whose tokenizer raises its own
            raise self._damaged(f"the npy header of {suffix} is broken ({error})") from error
        if fortran or found != dtype or shape != (count,):
            raise self._damaged(f"{suffix} is {found}{shape}, expected {dtype}({count},)")
        if header.tell() + count * dtype.itemsize != len(payload):
            raise self._damaged(f"{suffix} does not have the length its header says")

    def _dtype_of(self, suffix: str) -> np.dtype:
        if suffix == SOFT_LABELS:
            return soft_label_dtype(self._dtype)
        return np.dtype(np.float32) if suffix == "rewards.npy" else self._dtype

    def _count_of(self, suffix: str) -> int:
        """Elements of an array; of soft labels as many as fit behind the header."""
        if suffix != SOFT_LABELS:
            return self._sizes[suffix]
        payload = self._payload(suffix)
        # The header of an .npy file of version 1.0 begins at byte 10; bytes 8 and 9 are its length.
        header_bytes = 10 + int.from_bytes(payload[8:10], "little")
        return max(0, len(payload) - header_bytes) // self._dtype_of(suffix).itemsize

    def _payload(self, suffix: str) -> memoryview:
        member = self._members[suffix]
        return memoryview(self._file)[member.offset : member.offset + member.size]

    def _verify(self, suffix: str) -> None:
        """Check a member's checksum, unless that was done before."""
        flag = 1 << SUFFIXES.index(suffix)
        if self._verified[0] & flag:
            return
        if zlib.crc32(self._payload(suffix)) != self._members[suffix].crc32:
            raise self._damaged(f"the checksum of {self._members[suffix].name} is wrong")
        self._verified |= flag

    def verify(self) -> None:
        """Check every member's checksum now; raises DamagedShard."""
        for suffix in self._members:
            self._verify(suffix)

    def read_records(self) -> list[dict[str, Any]]:
        """Facts of each episode, parsed anew: they take more room than the tokens."""
        self._verify("episodes.json")
        member = self._members["episodes.json"]
        try:
            records = parse_json(bytes(self._payload("episodes.json")), member.name)
            self._check_records(records)
        except (GeneralistError, LookupError, TypeError, ValueError) as error:
            raise self._damaged(f"{member.name} does not hold its episodes ({error})") from error
        return records

    def _check_records(self, records: Any) -> None:
        """Raise an error unless these are episodes of whole timesteps, one after the other."""
        end = 0
        for record in records:
            steps, length = record["steps"], record["length"]
            if type(steps) is not int or steps < 1 or record["offset"] != end:
                raise ValueError(f"no episode begins at token {end}")
            if length != steps * self._layout.tokens_per_timestep:
                raise ValueError(f"{length} tokens are not {steps} timesteps")
            if not isinstance(record["return"], (int, float)):
                raise TypeError("a return is no number")
            if not isinstance(record.get("instruction"), str | None):
                raise TypeError("an instruction is no text")
            end += length

    @functools.cached_property
    def records(self) -> list[dict[str, Any]]:
        """Facts of each episode, kept for as long as the sample is."""
        return self.read_records()

    def _array(self, suffix: str) -> np.ndarray:
        """The array of a .npy member, without a copy."""
        self._verify(suffix)
        member, dtype = self._members[suffix], self._dtype_of(suffix)
        count = self._count_of(suffix)
        # Its end, because the headers are checked: the array is what they leave of the member.
        first = member.offset + member.size - count * dtype.itemsize
        return np.frombuffer(self._file, dtype, count, first)

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

    @functools.cached_property
    def soft_labels(self) -> SoftLabels | None:
        """The distributions that stand in place of labels; None where there are none."""
        if SOFT_LABELS not in self._members:
            return None
        rows = self._array(SOFT_LABELS)
        if problem := problem_of(rows, self.size_steps, self._layout):
            raise self._damaged(problem)
        return SoftLabels(rows)


def map_shard(
    path: Path, *, size: int, sha256: str, remote: Remote | None = None
) -> mmap.mmap | bytes:
    """The bytes of a shard, mapped; downloads it first where it has a remote source.

    Args:
        path: of the shard.
        size: its bytes, by the manifest.
        sha256: its hash, by the manifest.
        remote: where it comes from; None for a local dataset.

    Raises:
        DamagedShard: it cannot be opened, or its download is not the promised one.
    """
    for _ in range(_ATTEMPTS):
        if remote is not None and (reason := remote.fetch(path, size=size, sha256=sha256)):
            raise DamagedShard(path, None, reason)
        try:
            with open(path, "rb") as handle:
                found = handle.seek(0, io.SEEK_END)
                return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) if found else b""
        except OSError as error:
            failure = error
        if remote is None:
            break  # else another process, in need of room, may just have deleted it
    raise DamagedShard(path, None, f"it cannot be opened ({failure.strerror})") from failure


def open_shard(
    folder: Path, entry: ShardEntry, *, layout: Layout, vocabulary: Vocabulary
) -> Iterator[Sample | DamagedShard]:
    """The samples of a shard in order; a damaged one is yielded as its DamagedShard."""
    path = folder / entry.name
    try:
        remote = Remote.of(folder)
        file = map_shard(path, size=entry.bytes, sha256=entry.sha256, remote=remote)
    except DamagedShard as error:
        yield error
        return
    damaged = 0
    for key, members in entry.samples().items():
        try:
            dtype = vocabulary.dtype
            yield Sample(path, key, members=members, file=file, dtype=dtype, layout=layout)
        except DamagedShard as error:
            damaged += 1
            yield error
    if len(file) != entry.bytes and not damaged:
        yield DamagedShard(path, None, f"it has {len(file)} bytes, the manifest says {entry.bytes}")
