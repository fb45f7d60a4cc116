"""dataset.json and manifest.json: what is in a dataset folder, and proof that it is all there."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from generalist.errors import GeneralistError
from generalist.shards.files import read_json, write_json
from generalist.tokenization.layout import Layout
from generalist.vocabulary import Vocabulary, fingerprint_of

FORMAT = 1


@dataclass
class DatasetHeader:
    """dataset.json: what all shards of a folder share. `collection` is how episodes were made."""

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
        """Header from live objects."""
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
        """Header of a dataset folder."""
        data = read_json(folder / "dataset.json")
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise GeneralistError(f"{folder / 'dataset.json'} is not of dataset format {FORMAT}.")
        data.pop("counts", None)
        try:
            return cls(**data)
        except TypeError as error:
            raise GeneralistError(f"{folder / 'dataset.json'} is incomplete: {error}.") from error

    @property
    def is_imported(self) -> bool:
        """Whether others recorded the episodes, so that no expert of ours played them."""
        return self.collection.get("source") == "import"

    def check(self, folder: Path, vocabulary: str, processor: str) -> None:
        """Raise GeneralistError unless the fingerprints are those the data was written with."""
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
    """A file in a shard: where its bytes stand in the tar, how many, and their checksum."""

    name: str
    offset: int
    size: int
    crc32: int


@dataclass(slots=True)
class ShardEntry:
    """A complete shard, as the manifest lists it."""

    name: str
    bytes: int
    sha256: str
    tokens: int
    steps: int
    episodes: int
    relabelled: int
    return_sum: float
    members: list[Member]

    def samples(self) -> dict[str, dict[str, Member]]:
        """Key of each sample to its members by their suffix, in order."""
        samples: dict[str, dict[str, Member]] = {}
        for member in self.members:
            key, _, suffix = member.name.partition(".")
            samples.setdefault(key, {})[suffix] = member
        return samples


@dataclass
class Manifest:
    """manifest.json: the complete shards, and the seeds that were tried and left out."""

    shards: list[ShardEntry] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Manifest of a dataset folder."""
        path = folder / "manifest.json"
        return cls.from_json(read_json(path), str(path))

    @classmethod
    def from_json(cls, data: Any, path: str) -> Manifest:
        """Manifest from what its file holds; `path` is for the error where that is no manifest."""
        try:
            shards = [
                ShardEntry(**{**shard, "members": [Member(**m) for m in shard["members"]]})
                for shard in data["shards"]
            ]
            return cls(shards, dict(data["rejected"]))
        except (KeyError, TypeError) as error:
            raise GeneralistError(f"{path} is not a manifest of shards: {error}.") from error

    def write(self, folder: Path) -> None:
        """Replace manifest.json in one piece."""
        value = {"format": FORMAT, "rejected": self.rejected}
        write_json(folder / "manifest.json", {**value, "shards": [asdict(s) for s in self.shards]})

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the content of all shards, in order."""
        return fingerprint_of([shard.sha256 for shard in self.shards])

    def counts(self) -> dict[str, int]:
        """Episodes, steps and tokens over all shards, and steps whose label differs."""
        names = ("episodes", "steps", "tokens", "relabelled")
        return {name: sum(getattr(shard, name) for shard in self.shards) for name in names}

    def records(self, folder: Path) -> Iterator[dict[str, Any]]:
        """All episode records in order, read straight from the tars."""
        for shard in self.shards:
            with open(folder / shard.name, "rb") as file:
                for member in shard.members:
                    if member.name.endswith(".episodes.json"):
                        file.seek(member.offset)
                        payload = file.read(member.size)
                        if zlib.crc32(payload) != member.crc32:
                            raise GeneralistError(
                                f"{folder / shard.name}: {member.name} is damaged; "
                                "delete the folder and collect it again."
                            )
                        yield from json.loads(payload)
