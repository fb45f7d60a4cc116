"""Writing a dataset folder.

One folder a task, `ROOT/<family>/<Name>/`:

    dataset.json      task, layout, spaces, vocabulary, fingerprints, how it was collected, counts
    manifest.json     per shard: bytes, sha256, tokens, episodes, members (offset, size, crc32)
    README.md         a card for people; nothing here reads it
    index.bin         where each episode stands; written by the first to read the folder
    shard-00000.tar   a standard WebDataset tar; a sample is a block of whole episodes:
        KEY.tokens.npy    (tokens,) all episodes end to end, uint16 or uint32
        KEY.rewards.npy   (steps,) float32, raw; not there for documents
        KEY.labels.npy    (steps * k,) ids the expert would have chosen; only where any differs
                          from the executed action
        KEY.soft_labels.npy   (n,) rows of step, id and weight: distributions in place of labels;
                          only where a step has one (see generalist.shards.soft_labels)
        KEY.episodes.json a list of records: offset, length, steps, return, seed, expert, ...

A shard is written under another name, synced and renamed; the manifest follows last. So the
manifest always describes complete shards, whatever interrupts the writer.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np

from generalist.errors import GeneralistError, needing
from generalist.seeds import EVALUATION_SEED, is_dataset_seed
from generalist.shards.card import write_card
from generalist.shards.files import PARTIAL, DiskFull, exclusive, replacing
from generalist.shards.manifest import DatasetHeader, Manifest, Member, ShardEntry
from generalist.shards.sample import SOFT_LABELS
from generalist.shards.soft_labels import problem_of

BLOCK_TOKENS = 2**20
SHARD_TOKENS = 2**22


@dataclass
class EncodedEpisode:
    """An episode of T steps as tokens.

    Attributes:
        tokens: (T * tokens_per_timestep,) ids of the observations and the executed actions.
        rewards: (T,) float32, raw.
        labels: (T * k,) ids of the expert's own actions; None where they are the executed ones.
        record: JSON-able facts: seed, expert, noise, terminated, truncated, instruction, source.
        soft_labels: (n,) rows of `soft_label_dtype`, by step of the episode; a step without rows
            has its label alone. None where no step has any.
    """

    tokens: np.ndarray
    rewards: np.ndarray
    labels: np.ndarray | None
    record: dict[str, Any]
    soft_labels: np.ndarray | None = None


class ShardWriter:
    """Append episodes to a dataset folder; use as a context manager.

    An existing folder is continued: `seeds` says which episodes are there already. Leaving the
    context, also through Ctrl-C or an error, writes the episodes that were added so far.

    Args:
        folder: of the dataset, made where it does not exist.
        header: of the dataset; an existing folder must have been written for its task, layout,
            vocabulary and processor.
        block_tokens: tokens of a sample, about.
        shard_tokens: tokens of a shard, about.

    Raises:
        GeneralistError: another process writes to the folder, it is damaged, or of another header.
    """

    def __init__(
        self,
        folder: str | Path,
        header: DatasetHeader,
        *,
        block_tokens: int = BLOCK_TOKENS,
        shard_tokens: int = SHARD_TOKENS,
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(exclusive(self.folder))
        try:
            self.header, self.manifest = self._open(header)
            self.seeds = {
                record["seed"] for record in self.manifest.records(self.folder) if "seed" in record
            }
        except BaseException:
            self._stack.close()
            raise
        self.layout, self.vocabulary = header.parts(self.folder)
        self._block_tokens, self._shard_tokens = block_tokens, shard_tokens
        self._pending: list[EncodedEpisode] = []
        self._pending_tokens = 0
        self._rejections_pending = False

    def _open(self, header: DatasetHeader) -> tuple[DatasetHeader, Manifest]:
        """Continue what is there, or start; drop what an interrupted writer left."""
        if not (self.folder / "dataset.json").exists():
            if any(self.folder.glob("shard-*.tar")):
                raise GeneralistError(
                    f"{self.folder} holds shards but no dataset.json; move them away first."
                )
            # The manifest first: where there is a dataset.json, there is a manifest.
            manifest = Manifest()
            manifest.write(self.folder)
            header.write(self.folder, {})
            return header, manifest
        found = DatasetHeader.read(self.folder)
        found.check(self.folder, header.vocabulary_fingerprint, header.processor_fingerprint)
        for name in ("task", "layout"):
            if getattr(found, name) != getattr(header, name):
                raise GeneralistError(
                    f"{self.folder} was written for another {name}; choose another folder."
                )
        manifest = Manifest.read(self.folder)
        for path in self.folder.glob("*" + PARTIAL):
            path.unlink()
        listed = {shard.name for shard in manifest.shards}
        for path in self.folder.glob("shard-*.tar"):
            if path.name not in listed:  # renamed, but the manifest did not follow
                path.unlink()
        return found, manifest

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or not issubclass(kind, DiskFull):
                self.flush()
        finally:
            self._stack.close()

    def close(self) -> None:
        """Write what is pending and let go of the folder."""
        self.__exit__(None)

    @property
    def episodes_written(self) -> int:
        """Episodes in the folder, those still pending included."""
        return self.manifest.counts()["episodes"] + len(self._pending)

    def add(self, episode: EncodedEpisode) -> None:
        """Append one episode; writes a shard when enough tokens are pending.

        Raises:
            GeneralistError: its parts disagree, or a fact cannot be stored; its seed is named.
            DiskFull: there is no room for the shard.
        """
        episode = self._checked(episode)
        self._pending.append(episode)
        self._pending_tokens += len(episode.tokens)
        if "seed" in episode.record:
            self.seeds.add(episode.record["seed"])
        if self._pending_tokens >= self._shard_tokens:
            self.flush()

    def reject(self, seed: int, reason: str) -> None:
        """Leave a seed out for good: it is not tried again."""
        self.manifest.rejected[str(seed)] = reason
        self._rejections_pending = True

    def flush(self) -> None:
        """Write the pending episodes as a shard, then the manifest.

        They stay pending until both are written, so an interrupted flush can be done again: it
        writes the same shard under the same name.

        Raises:
            DiskFull: there is no room.
        """
        shards = list(self.manifest.shards)
        if self._pending:
            shards.append(self._write_shard(f"shard-{len(shards):05d}.tar", self._pending))
        elif not self._rejections_pending:
            return
        manifest = Manifest(shards, self.manifest.rejected)
        self.header.write(self.folder, manifest.counts())
        manifest.write(self.folder)
        write_card(self.folder, self.header, manifest.counts())
        self.manifest = manifest
        self._pending, self._pending_tokens, self._rejections_pending = [], 0, False

    def _checked(self, episode: EncodedEpisode) -> EncodedEpisode:
        """The episode with final dtypes and a full record; GeneralistError if parts disagree."""
        layout, record = self.layout, dict(episode.record)
        tokens = np.asarray(episode.tokens)
        rewards = np.asarray(episode.rewards, dtype=np.float32)
        who = f"{self.header.task}, episode of seed {record.get('seed')}"
        steps, rest = divmod(len(tokens), layout.tokens_per_timestep)
        if tokens.ndim != 1 or not steps or rest or len(rewards) != steps:
            raise GeneralistError(
                f"{who}: {tokens.shape} tokens do not make {len(rewards)} timesteps of "
                f"{layout.tokens_per_timestep}."
            )
        labels = episode.labels if episode.labels is None else np.asarray(episode.labels)
        if labels is not None and labels.shape != (steps * len(layout.legal),):
            raise GeneralistError(
                f"{who}: {labels.shape} labels do not make {steps} actions of "
                f"{len(layout.legal)} tokens."
            )
        for ids in (tokens, labels):
            if ids is not None and (ids.min() < 0 or ids.max() >= self.vocabulary.size):
                raise GeneralistError(f"{who}: ids outside [0, {self.vocabulary.size}).")
        if not np.isfinite(rewards).all():
            raise GeneralistError(f"{who}: a reward is not finite.")
        seed = record.get("seed")
        if seed is not None and not is_dataset_seed(seed):
            raise GeneralistError(
                f"{who}: seeds of a dataset lie in [0, {EVALUATION_SEED}), or are those of "
                "reinforcement and of attempts; the others are kept for evaluation."
            )
        executed = self._executed(tokens)
        relabelled = 0
        if labels is not None:
            differs = (labels != executed).reshape(steps, -1).any(axis=1)
            relabelled = int(differs.sum())
            labels = labels.astype(self.vocabulary.dtype) if relabelled else None
        record |= {"length": len(tokens), "steps": steps, "relabelled": relabelled}
        soft = episode.soft_labels
        if soft is not None and len(soft):
            if problem := problem_of(soft, steps, layout):
                raise GeneralistError(f"{who}: {problem}.")
            record["soft_labels"] = len(np.unique(soft["step"]))
        record["return"] = float(rewards.astype(np.float64).sum())
        if not isinstance(record.get("instruction"), str | None):
            raise GeneralistError(
                f"{who}: the instruction is a {type(record['instruction']).__name__}, not a text."
            )
        try:
            json.dumps(record, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise GeneralistError(f"{who}: a fact of it cannot be stored: {error}.") from error
        ids = tokens.astype(self.vocabulary.dtype)
        return EncodedEpisode(ids, rewards, labels, record, soft)

    def _executed(self, tokens: np.ndarray) -> np.ndarray:
        """(T * k,) ids at the action positions."""
        timesteps = tokens.reshape(-1, self.layout.tokens_per_timestep)
        return timesteps[:, self.layout.positions.chosen].reshape(-1)

    def _write_shard(self, name: str, episodes: list[EncodedEpisode]) -> ShardEntry:
        """Write one tar and describe it."""
        with needing("Writing shards"):
            import webdataset  # seconds to import; readers do not need it

        path = self.folder / name
        # In memory first: a tar stream whose file fails under it complains when it is collected.
        buffer = io.BytesIO()
        # A fixed time keeps the bytes a function of the content alone.
        with webdataset.TarWriter(buffer, encoder=False, mtime=0) as tar:
            for index, block in enumerate(_blocks(episodes, self._block_tokens)):
                key = f"{path.stem.removeprefix('shard-')}-{index:04d}"
                tar.write({"__key__": key, **self._sample(block)})
        with replacing(path) as file:
            file.write(buffer.getbuffer())
            file.flush()
            members, digest, size = _describe(file)
        records = [episode.record for episode in episodes]
        return ShardEntry(
            name=name,
            bytes=size,
            sha256=digest,
            tokens=sum(record["length"] for record in records),
            steps=sum(record["steps"] for record in records),
            episodes=len(records),
            relabelled=sum(record["relabelled"] for record in records),
            soft_labels=sum(record.get("soft_labels", 0) for record in records),
            return_sum=sum(record["return"] for record in records),
            members=members,
        )

    def _sample(self, episodes: list[EncodedEpisode]) -> dict[str, bytes]:
        """The members of one block."""
        offsets = np.cumsum([0] + [len(episode.tokens) for episode in episodes])[:-1]
        records = [{"offset": int(o), **e.record} for o, e in zip(offsets, episodes, strict=True)]
        sample = {
            "tokens.npy": npy_bytes(np.concatenate([e.tokens for e in episodes])),
            "episodes.json": json.dumps(records, allow_nan=False).encode(),
        }
        if not self.layout.is_document:
            sample["rewards.npy"] = npy_bytes(np.concatenate([e.rewards for e in episodes]))
        if any(e.labels is not None for e in episodes):
            labels = [self._executed(e.tokens) if e.labels is None else e.labels for e in episodes]
            sample["labels.npy"] = npy_bytes(np.concatenate(labels))
        if soft := _soft_labels(episodes):
            sample[SOFT_LABELS] = npy_bytes(np.concatenate(soft))
        return sample


def _soft_labels(episodes: Iterable[EncodedEpisode]) -> list[np.ndarray]:
    """The soft labels of a block's episodes, by step of the block; of those that have any."""
    found, first = [], 0
    for episode in episodes:
        if episode.soft_labels is not None and len(episode.soft_labels):
            rows = episode.soft_labels.copy()
            rows["step"] += first
            found.append(rows)
        first += len(episode.rewards)
    return found


def _blocks(
    episodes: Iterable[EncodedEpisode], block_tokens: int
) -> Iterator[list[EncodedEpisode]]:
    """Cut into runs of whole episodes of about `block_tokens` tokens."""
    block: list[EncodedEpisode] = []
    size = 0
    for episode in episodes:
        block.append(episode)
        size += len(episode.tokens)
        if size >= block_tokens:
            yield block
            block, size = [], 0
    if block:
        yield block


def npy_bytes(array: np.ndarray) -> bytes:
    """A .npy file in memory."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _describe(file: BufferedRandom) -> tuple[list[Member], str, int]:
    """Members, sha256 and size of a tar, read back from the file as it was written."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = file.tell()
    file.seek(0)
    members = []
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            payload = tar.extractfile(info)
            assert payload is not None  # the writer makes regular files only
            crc = zlib.crc32(payload.read())
            members.append(Member(info.name, info.offset_data, info.size, crc))
    return members, digest, size


def append_episodes(folder: str | Path, episodes: Iterable[EncodedEpisode]) -> int:
    """Add episodes, such as corrections, to an existing dataset folder; returns how many."""
    with ShardWriter(folder, DatasetHeader.read(Path(folder))) as writer:
        before = writer.episodes_written
        for episode in episodes:
            writer.add(episode)
        return writer.episodes_written - before
