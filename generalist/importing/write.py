"""Recordings to shards: read lazily, in order, so that an interrupted import continues.

Whole shards are written and nothing else: what was read for one that is not full yet is read again
by the next call. So the bytes are the same however often the import was interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist.collecting.encode import encode_episode
from generalist.envs import get_task, is_document_task, make
from generalist.errors import GeneralistError, UsageError
from generalist.importing.source import Document, Load, Recording, Source
from generalist.importing.spaces import infer_spaces
from generalist.shards.files import DiskFull
from generalist.shards.manifest import DatasetHeader, Manifest
from generalist.shards.shards import SHARD_TOKENS, EncodedEpisode, ShardWriter
from generalist.shards.spaces import space_to_json
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import load_processor

if TYPE_CHECKING:
    from gymnasium.spaces import Space

    from generalist.tokenization.processor import GeneralistProcessor

_SOURCE = "import"


@dataclass
class ImportReport:
    """What became of an import; `episodes` counts all that are in the folder."""

    task: str
    folder: str
    episodes: int = 0
    added: int = 0
    left_out: int = 0
    spaces: str = ""
    notes: tuple[str, ...] = ()


def import_source(
    source: Source,
    task: str,
    root: str | Path,
    episodes: int | None = None,
    skip_bad: bool = False,
    processor: str | None = None,
    progress: bool = True,
    shard_tokens: int = SHARD_TOKENS,
) -> ImportReport:
    """Write the first `episodes` recordings of a source to `root/task`, all where None is given.

    The spaces are those of the task's environment where `task` is known here, else the source's
    own, else what the recordings show.

    skip_bad: leave out recordings that cannot be encoded, and count them, in place of the error.

    Raises GeneralistError that names the recording (counted from 0) and what is wrong with it.
    """
    if task.count("/") != 1 or ".." in task or not all(task.split("/")):
        raise UsageError(f"A task is written family/Name; got {task!r}.")
    if is_document_task(task) != source.is_text:
        what = "holds" if source.is_text else "does not hold"
        raise UsageError(
            f"{source.name} {what} documents; tasks of documents, and no others, are text/NAME."
        )
    loaded = load_processor(processor)
    folder = Path(root) / task
    report = ImportReport(task, str(folder), notes=tuple(source.notes))
    header, report.spaces = _header(source, task, folder, episodes, skip_bad, loaded, progress)
    encoder = _Encoder(source.name, task, loaded, Layout.from_dict(header.layout))
    with ShardWriter(folder, header, shard_tokens=sys.maxsize) as writer:
        first = _next_number(writer)
        batch = _Batch(writer, report, shard_tokens)
        for number, load in _numbered(source, first, episodes, progress, "import"):
            try:
                batch.add(encoder(number, load))
            except DiskFull:
                raise
            except GeneralistError as error:
                if not skip_bad:
                    raise
                batch.leave_out(number, str(error))
        batch.write()
        report.episodes = writer.episodes_written
    if not report.episodes:
        raise GeneralistError(f"{source.name} has no episode that could be kept.")
    return report


def _header(
    source: Source,
    task: str,
    folder: Path,
    episodes: int | None,
    skip_bad: bool,
    processor: GeneralistProcessor,
    progress: bool,
) -> tuple[DatasetHeader, str]:
    """The header of the folder, and where its spaces are from."""
    collection = {"source": _SOURCE, **source.facts}
    if (folder / "dataset.json").exists():
        found = DatasetHeader.read(folder)
        found.check(folder, processor.vocabulary.fingerprint, processor.fingerprint)
        _check_same(folder, found.collection, collection)
        return found, "as before"
    spaces: dict[str, Any] = {}
    if is_document_task(task):
        layout, origin = processor.document_layout(), "text"
    else:
        observation, action, origin = _spaces(source, task, episodes, skip_bad, progress)
        try:
            layout = processor.layout(observation, action, task=task)
        except GeneralistError as error:
            raise GeneralistError(f"{source.name}: {error}") from error
        spaces = {"observation": space_to_json(observation), "action": space_to_json(action)}
    parts = layout, processor.vocabulary, processor.fingerprint
    return DatasetHeader.create(task, *parts, spaces, collection), origin


def _check_same(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    # As JSON gives it back: lists for tuples.
    wanted = DatasetHeader("", {}, {}, "", "", collection=wanted).collection
    for key in wanted.keys() | found.keys():
        if found.get(key) != wanted.get(key):
            raise GeneralistError(
                f"{folder} was made with {key} {found.get(key)!r}, now it is {wanted.get(key)!r}; "
                "choose another folder with --out, or delete this one."
            )


def _spaces(
    source: Source, task: str, episodes: int | None, skip_bad: bool, progress: bool
) -> tuple[Space, Space, str]:
    try:
        get_task(task)
    except UsageError:
        stated = source.spaces()
        if stated is not None:
            return *stated, "the dataset's own"
        try:
            return *infer_spaces(_readable(source, episodes, skip_bad, progress)), "inferred"
        except GeneralistError as error:
            raise GeneralistError(f"{source.name}: {error}") from error
    env = make(task)
    try:
        return env.observation_space, env.action_space, f"the environment's, {task}"
    finally:
        env.close()


def _readable(
    source: Source, episodes: int | None, skip_bad: bool, progress: bool
) -> Iterator[tuple[int, Recording]]:
    """The recordings that are going to be imported, to look at their spaces."""
    for number, load in _numbered(source, 0, episodes, progress, "look at spaces"):
        try:
            recording = load()
        except GeneralistError as error:
            if skip_bad:
                continue
            raise GeneralistError(f"episode {number}: {error}") from error
        assert isinstance(recording, Recording)
        yield number, recording


def _numbered(
    source: Source, first: int, episodes: int | None, progress: bool, doing: str
) -> Iterator[tuple[int, Load]]:
    """Recordings from number `first` up to `episodes`, with a progress bar."""
    from tqdm import tqdm

    total = source.total if episodes is None else min(episodes, source.total or episodes)
    if total is not None and first >= total:
        return
    bar = tqdm(total=total, initial=first, desc=doing, unit="episode", disable=not progress)
    with bar:
        numbers = count(first) if total is None else range(first, total)
        for number, load in zip(numbers, source.recordings(first), strict=False):
            yield number, load
            bar.update()


def _next_number(writer: ShardWriter) -> int:
    """The number of the first recording that was neither written nor left out."""
    manifest: Manifest = writer.manifest
    done = [record["episode"] for record in manifest.records(writer.folder)]
    return max([*done, *map(int, manifest.rejected)], default=-1) + 1


@dataclass
class _Encoder:
    """Reads and encodes; what goes wrong names the source and the recording."""

    name: str
    task: str
    processor: GeneralistProcessor
    layout: Layout

    def __call__(self, number: int, load: Load) -> EncodedEpisode:
        try:
            item = load()
            return self._document(number, item.text) if isinstance(item, Document) else (
                self._episode(number, item)
            )  # fmt: skip
        except GeneralistError as error:
            raise GeneralistError(f"{self.name}, episode {number}: {error}") from error

    def _episode(self, number: int, recording: Recording) -> EncodedEpisode:
        episode = recording.episode(self.task)
        episode.info["episode"] = number
        return encode_episode(episode, self.processor, self.layout, source=_SOURCE)

    def _document(self, number: int, text: str) -> EncodedEpisode:
        ids = self.processor.encode_text(text)
        if not len(ids):
            raise GeneralistError("it is empty.")
        record = {"episode": number, "source": _SOURCE, "instruction": None}
        record |= {"terminated": True, "truncated": False}
        return EncodedEpisode(ids, np.zeros(len(ids)), None, record)


class _Batch:
    """Holds episodes back until they fill a shard, so that none is ever cut short."""

    def __init__(self, writer: ShardWriter, report: ImportReport, shard_tokens: int) -> None:
        self._writer, self._report, self._shard_tokens = writer, report, shard_tokens
        self._episodes: list[EncodedEpisode] = []
        self._left_out: dict[int, str] = {}
        self._tokens = 0

    def add(self, episode: EncodedEpisode) -> None:
        """Keep an episode; writes a shard when there are enough."""
        self._episodes.append(episode)
        self._tokens += len(episode.tokens)
        if self._tokens >= self._shard_tokens:
            self.write()

    def leave_out(self, number: int, reason: str) -> None:
        """Remember a recording that is not taken."""
        self._left_out[number] = reason

    def write(self) -> None:
        """Write what is held."""
        for episode in self._episodes:
            self._writer.add(episode)
        for number, reason in self._left_out.items():
            self._writer.reject(number, reason)
        self._report.added += len(self._episodes)
        self._report.left_out += len(self._left_out)
        self._episodes, self._left_out, self._tokens = [], {}, 0
        self._writer.flush()
