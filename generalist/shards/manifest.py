"""dataset.json and manifest.json: what is in a dataset folder, and proof that it is all there.

Both are sealed (see `integrity`), and both may be a stranger's: no name in them leads outside the
folder, and nothing is allocated on their word.
"""

from __future__ import annotations

import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from generalist.errors import GeneralistError
from generalist.integrity import DamagedFile, parse_json, read_json, sealed, unsealed
from generalist.shards.files import write_json
from generalist.shards.strangers import is_shard_name, is_task_name
from generalist.tokenization.layout import Layout
from generalist.vocabulary import Vocabulary, fingerprint_of

FORMAT = 1
TAR_BLOCK_BYTES = 512
_LARGEST = 2**63 - 1  # what the index can hold
_LONGEST_TIMESTEP_TOKENS = 2**20


@dataclass
class DatasetHeader:
    """dataset.json: the facts that all shards of a folder share.

    Attributes:
        task: `family/Name`.
        layout: of a timestep, as `Layout.to_dict` gives it.
        vocabulary: as `Vocabulary.to_dict` gives it.
        vocabulary_fingerprint: 16 hex digits over the vocabulary.
        processor_fingerprint: 16 hex digits over the processor that encoded the episodes.
        spaces: observation and action space, for people and other programs.
        collection: how the episodes were made: expert, noise, options, ...
        format: number of this form.
    """

    task: str
    layout: dict[str, Any]
    vocabulary: dict[str, Any]
    vocabulary_fingerprint: str
    processor_fingerprint: str
    spaces: dict[str, Any] = field(default_factory=dict)
    collection: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        # As JSON gives it back (lists for tuples), so that headers compare equal.
        self.layout = json.loads(json.dumps(self.layout))
        self.spaces = json.loads(json.dumps(self.spaces))
        self.collection = json.loads(json.dumps(self.collection))

    @classmethod
    def create(
        cls,
        task: str,
        layout: Layout,
        vocabulary: Vocabulary,
        processor_fingerprint: str,
        spaces: dict[str, Any] | None = None,
        collection: dict[str, Any] | None = None,
    ) -> DatasetHeader:
        """The header of a new folder, from live objects."""
        return cls(
            task,
            layout.to_dict(),
            vocabulary.to_dict(),
            vocabulary.fingerprint,
            processor_fingerprint,
            spaces or {},
            collection or {},
        )

    @classmethod
    def read(cls, folder: Path) -> DatasetHeader:
        """The header of a dataset folder.

        Raises:
            GeneralistError: dataset.json is missing, damaged or of another format; it is named.
        """
        path = folder / "dataset.json"
        data = unsealed(read_json(path), path)
        if data.get("format") != FORMAT:
            raise GeneralistError(f"{path} is not of dataset format {FORMAT}.")
        data.pop("counts", None)
        try:
            header = cls(**data)
        except TypeError as error:
            raise DamagedFile(path, f"it is no header of a dataset ({error})") from error
        for name, kind in (("layout", dict), ("vocabulary", dict), ("collection", dict)):
            if not isinstance(getattr(header, name), kind):
                raise DamagedFile(path, f"its {name} is no object")
        if not is_task_name(header.task):
            raise DamagedFile(path, f"{header.task!r} is no name of a task, family/Name")
        return header

    def write(self, folder: Path, counts: dict[str, int]) -> None:
        """Replace dataset.json in one piece; `counts` are for people who read it."""
        write_json(folder / "dataset.json", sealed({**asdict(self), "counts": counts}))

    def parts(self, folder: Path) -> tuple[Layout, Vocabulary]:
        """Layout and vocabulary of the header that was read from `folder`.

        Raises:
            GeneralistError: the header describes none; dataset.json is named.
        """
        path = folder / "dataset.json"
        try:
            layout = Layout.from_dict(self.layout)
            vocabulary = Vocabulary.from_dict(self.vocabulary)
            tokens = layout.tokens_per_timestep  # not `legal`: what is promised is not allocated
            chosen = sum(part.tokens for part in layout.parts_of("action"))
            if not 0 < chosen <= tokens <= _LONGEST_TIMESTEP_TOKENS:
                raise ValueError(f"{chosen} action tokens in a timestep of {tokens}")
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise DamagedFile(path, f"it describes no layout ({error!r})") from error
        except GeneralistError as error:
            raise GeneralistError(f"{path}: {error}") from error
        return layout, vocabulary

    @property
    def is_imported(self) -> bool:
        """Whether others recorded the episodes, so that no expert of ours played them."""
        return self.collection.get("source") == "import"

    def check(self, folder: Path, vocabulary: str, processor: str) -> None:
        """Compare the fingerprints in use with those of the data.

        Raises:
            GeneralistError: they differ; both are named.
        """
        for name, ours, theirs in (
            ("vocabulary", self.vocabulary_fingerprint, vocabulary),
            ("processor", self.processor_fingerprint, processor),
        ):
            if ours != theirs:
                raise GeneralistError(
                    f"{folder} was written with {name} {ours}, but the {name} in use is {theirs}; "
                    "use the tokenizer the data was made with, or collect it again."
                )


@dataclass(slots=True)
class Member:
    """A file in a shard: its place in the tar and its size, in bytes, and its CRC-32."""

    name: str
    offset: int
    size: int
    crc32: int


@dataclass(slots=True)
class ShardEntry:
    """A complete shard, as the manifest lists it.

    Attributes:
        name: `shard-NNNNN.tar`.
        bytes: size of the file.
        sha256: of the whole file, in hex digits.
        tokens, steps, episodes: how many it holds.
        relabelled: steps whose label differs from the executed action.
        return_sum: sum of the returns of its episodes.
        members: its files, in order.
        soft_labels: steps whose label is a distribution; written only where there are any, so that
            an older reader takes the manifest of shards without.
    """

    name: str
    bytes: int
    sha256: str
    tokens: int
    steps: int
    episodes: int
    relabelled: int
    return_sum: float
    members: list[Member]
    soft_labels: int = 0

    def check(self) -> None:
        """Raise ValueError where this describes no shard within the folder."""
        if not is_shard_name(self.name):
            raise ValueError(f"{self.name!r} is no name of a shard, shard-NNNNN.tar")
        counts = [self.bytes, self.tokens, self.steps, self.episodes, self.relabelled]
        counts.append(self.soft_labels)
        for member in self.members:
            counts += [member.offset, member.size, member.crc32]
        if not all(type(count) is int and 0 <= count <= _LARGEST for count in counts):
            raise ValueError(f"{self.name} has a count that is no whole number of 64 bits")
        if type(self.return_sum) not in (int, float) or not math.isfinite(self.return_sum):
            raise ValueError(f"{self.name} has a sum of returns that is no number")
        if not (isinstance(self.sha256, str) and re.fullmatch("[0-9a-f]{64}", self.sha256)):
            raise ValueError(f"{self.name} has no sha256")
        for member in self.members:
            if not isinstance(member.name, str) or member.crc32 >= 2**32:
                raise ValueError(f"{self.name} has a member without name or checksum")
            if not TAR_BLOCK_BYTES <= member.offset <= self.bytes - member.size:
                raise ValueError(f"{member.name} does not lie within {self.name}")

    def samples(self) -> dict[str, dict[str, Member]]:
        """Key of each sample to its members by their suffix, in order."""
        samples: dict[str, dict[str, Member]] = {}
        for member in self.members:
            key, _, suffix = member.name.partition(".")
            samples.setdefault(key, {})[suffix] = member
        return samples


@dataclass
class Manifest:
    """manifest.json: the complete shards, and the seeds that were tried and left out for good.

    Attributes:
        shards: in the order in which they were written.
        rejected: seed, in digits -> the reason.
    """

    shards: list[ShardEntry] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a dataset folder.

        Raises:
            GeneralistError: manifest.json is missing, damaged or no manifest; it is named.
        """
        path = folder / "manifest.json"
        return cls.from_json(read_json(path), path)

    @classmethod
    def from_json(cls, data: Any, path: Path | str) -> Manifest:
        """A manifest from the value of its JSON file.

        Args:
            data: the value.
            path: of the file, for errors.

        Raises:
            GeneralistError: it is no manifest, or it names anything but shards beside it.
        """
        data = unsealed(data, path)
        try:
            if data.keys() != {"format", "rejected", "shards"} or data["format"] != FORMAT:
                raise ValueError(f"expected format {FORMAT}, the shards and the rejected seeds")
            shards = [
                ShardEntry(**{**shard, "members": [Member(**m) for m in shard["members"]]})
                for shard in data["shards"]
            ]
            for shard in shards:
                shard.check()
            if len({shard.name for shard in shards}) < len(shards):
                raise ValueError("a shard stands twice in it")
            rejected = dict(data["rejected"])
            if not all(re.fullmatch("[0-9]{1,18}", seed) for seed in rejected):
                raise ValueError("a rejected seed is no number")
        except (LookupError, TypeError, ValueError) as error:
            raise GeneralistError(f"{path} is not a manifest of shards: {error}.") from error
        return cls(shards, rejected)

    def write(self, folder: Path) -> None:
        """Replace manifest.json in one piece."""
        shards = [asdict(shard) for shard in self.shards]
        for shard in shards:
            if not shard["soft_labels"]:
                del shard["soft_labels"]
        value = {"format": FORMAT, "rejected": self.rejected, "shards": shards}
        write_json(folder / "manifest.json", sealed(value))

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the content of all shards, in order."""
        return fingerprint_of([shard.sha256 for shard in self.shards])

    def counts(self) -> dict[str, int]:
        """Episodes, steps and tokens over all shards, and steps whose label differs.

        With soft labels, also the steps that have one.
        """
        names = ("episodes", "steps", "tokens", "relabelled", "soft_labels")
        counts = {name: sum(getattr(shard, name) for shard in self.shards) for name in names}
        if not counts["soft_labels"]:
            del counts["soft_labels"]
        return counts

    def records(self, folder: Path) -> Iterator[dict[str, Any]]:
        """All episode records in order, read straight from the tars.

        Raises:
            GeneralistError: a shard is missing or damaged; it is named.
        """
        for shard in self.shards:
            path = folder / shard.name
            try:
                with open(path, "rb") as file:
                    if os.fstat(file.fileno()).st_size != shard.bytes:
                        raise _damaged(path, "it has another size than in the manifest")
                    for member in shard.members:
                        if member.name.endswith(".episodes.json"):
                            file.seek(member.offset)
                            payload = file.read(member.size)
                            if zlib.crc32(payload) != member.crc32:
                                raise _damaged(path, f"the checksum of {member.name} is wrong")
                            yield from parse_json(payload, f"{path}, {member.name}")
            except OSError as error:
                raise _damaged(path, f"it cannot be read ({error.strerror})") from error


def _damaged(path: Path, reason: str) -> GeneralistError:
    return GeneralistError(f"{path} is damaged: {reason}; delete the folder and collect it again.")
