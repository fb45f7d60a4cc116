"""Recordings to shards: read lazily, in order, so that an interrupted import continues.

Whole shards are written and nothing else: what was read for one that is not full yet is read again
by the next call. So the bytes are the same however often the import was interrupted.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist.collecting.encode import encode_episode
from generalist.envs import get_task, is_document_task, make
from generalist.episode import Tree, tree_map
from generalist.errors import GeneralistError, UsageError
from generalist.importing.source import Document, Load, Recording, RecordingError, Source
from generalist.importing.spaces import infer_spaces
from generalist.shards.manifest import DatasetHeader, Manifest
from generalist.shards.shards import SHARD_TOKENS, EncodedEpisode, ShardWriter
from generalist.shards.spaces import space_to_json
from generalist.tokenization.fit_backgrounds import (
    EPISODE_STEPS,
    EVERY,
    PLAYED_STEPS,
    fit_backgrounds,
)
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import load_processor
from generalist.tokenization.use import CodeUse

if TYPE_CHECKING:
    from gymnasium import Env
    from gymnasium.spaces import Space

    from generalist.tokenization.processor import GeneralistProcessor

_SOURCE = "import"
_REASONS = 5  # of what was left out; the manifest has all


@dataclass
class ImportReport:
    """What became of an import; `episodes` counts all that are in the folder.

    reasons: of the first that were left out, what is wrong with each.
    """

    task: str
    folder: str
    episodes: int = 0
    added: int = 0
    left_out: int = 0
    reasons: tuple[str, ...] = ()
    spaces: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Import:
    """What is asked for."""

    source: Source
    task: str
    folder: Path
    episodes: int | None
    skip_bad: bool
    progress: bool

    def numbered(self, first: int, doing: str) -> Iterator[tuple[int, Load]]:
        """Recordings from number `first` on, with a progress bar."""
        from tqdm import tqdm

        there, wanted = self.source.total, self.episodes
        total = there if wanted is None else min(wanted, there or wanted)
        if total is not None and first >= total:
            return
        bar = tqdm(
            total=total, initial=first, desc=doing, unit="episode", disable=not self.progress
        )
        with bar:
            numbers = count(first) if total is None else range(first, total)
            for number, load in zip(numbers, self.source.recordings(first), strict=False):
                yield number, load
                bar.update()

    def error(self, error: RecordingError) -> GeneralistError:
        """The error of a recording that ends the import: whose it is, and what to do."""
        return GeneralistError(
            f"{self.source.name}, {error} Mend it, or leave out what cannot be imported with "
            "--skip-bad."
        )


def import_source(
    source: Source,
    task: str,
    root: str | Path,
    *,
    episodes: int | None = None,
    skip_bad: bool = False,
    processor: str | None = None,
    progress: bool = True,
    shard_tokens: int = SHARD_TOKENS,
) -> ImportReport:
    """Write the first `episodes` recordings of a source to `root/task`, all where None is given.

    The spaces are those of the task's environment where `task` is known here, else the source's
    own, else what the recordings show.

    Args:
        source: Where the recordings are from.
        task: The name they get, `family/Name`.
        root: The folder of datasets.
        episodes: How many recordings to take, those imported before included.
        skip_bad: Leave out recordings that cannot be read or encoded, and count them.
        processor: Folder of the processor to encode with, the shipped one by default.
        progress: Show a bar on stderr.
        shard_tokens: Tokens of a shard, about.

    Raises:
        UsageError: The task's name does not go with the source.
        GeneralistError: Names the recording (counted from 0), its file and row, and what is wrong.
    """
    _check_name(task)
    if is_document_task(task) != source.is_text:
        what = "holds" if source.is_text else "does not hold"
        raise UsageError(
            f"{source.name} {what} documents; tasks of documents, and no others, are text/NAME."
        )
    loaded = load_processor(processor)
    asked = _Import(source, task, Path(root) / task, episodes, skip_bad, progress)
    report = ImportReport(task, str(asked.folder))
    header, report.spaces = _header(asked, loaded)
    encoder = _Encoder(task, loaded, Layout.from_dict(header.layout))
    with ShardWriter(asked.folder, header, shard_tokens=sys.maxsize) as writer:
        first = _next_number(writer)
        batch = _Batch(writer, report, shard_tokens)
        for number, load in asked.numbered(first, "import"):
            try:
                batch.add(encoder(number, load))
            except RecordingError as error:
                if not skip_bad:
                    raise asked.error(error) from error
                batch.leave_out(number, str(error))
        batch.write()
        report.episodes = writer.episodes_written
    report.notes = (
        *source.notes,
        *(f"{asked.task}: {loss}" for loss in encoder.use.losses()),
    )
    if not report.episodes:
        reason = f" The first that was left out is {report.reasons[0]}" if report.reasons else ""
        raise GeneralistError(f"{source.name} has no episode that could be kept.{reason}")
    return report


def _check_name(task: str) -> None:
    """Raise UsageError unless a task's name is a path of two or more names, and leads nowhere else.

    Gymnasium's ids may have a namespace, as in gym/ALE/Pong-v5.
    """
    names = task.split("/")
    if len(names) < 2 or not all(names) or {".", ".."} & set(names):
        raise UsageError(f"A task is written family/Name; got {task!r}.")


def _header(asked: _Import, processor: GeneralistProcessor) -> tuple[DatasetHeader, str]:
    """The header of the folder, and where its spaces are from."""
    source, folder = asked.source, asked.folder
    collection = {"source": _SOURCE, **source.facts, **_made_with(source, asked.task)}
    if (folder / "dataset.json").exists():
        found = DatasetHeader.read(folder)
        found.check(folder, processor.vocabulary.fingerprint, processor.fingerprint)
        _check_same(folder, found.collection, collection)
        return found, "as before"
    spaces: dict[str, Any] = {}
    if is_document_task(asked.task):
        layout, origin = processor.document_layout(), "text"
    else:
        observation, action, origin = _spaces(asked)
        maker = _environment(source, asked.task)
        try:
            layout = processor.layout(observation, action, task=asked.task, play=maker)
        except GeneralistError as error:
            raise GeneralistError(f"{source.name}: {error}") from error
        if maker is None and processor.frames is not None:
            seen = _recorded(asked, processor, layout)
            layout = fit_backgrounds(layout, seen, processor.frames)
        spaces = {"observation": space_to_json(observation), "action": space_to_json(action)}
    parts = layout, processor.vocabulary, processor.fingerprint
    return DatasetHeader.create(asked.task, *parts, spaces, collection), origin


def _made_with(source: Source, task: str) -> dict[str, Any]:
    """What the header keeps of the environment; how to make it only where `task` is that one."""
    environment = source.environment
    if environment is None:
        return {}
    facts: dict[str, Any] = {"environment": environment.spec}
    if task == environment.task:
        facts |= {"options": environment.options, "wrappers_lost": environment.lost}
    return facts


def _check_same(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    # As JSON gives it back: lists for tuples.
    wanted = DatasetHeader("", {}, {}, "", "", collection=wanted).collection
    for key in wanted.keys() | found.keys():
        if found.get(key) != wanted.get(key):
            raise GeneralistError(
                f"{folder} was made with {key} {found.get(key)!r}, now it is {wanted.get(key)!r}; "
                "choose another folder with --out, or delete this one."
            )


def _spaces(asked: _Import) -> tuple[Space, Space, str]:
    source, task = asked.source, asked.task
    if (made := _environments_spaces(source, task)) is not None:
        return *made, f"the environment's, {task}"
    stated = source.spaces()
    if stated is not None:
        return *stated, "the dataset's own"
    loads = asked.numbered(0, "look at spaces")
    try:
        return *infer_spaces(loads, skip_bad=asked.skip_bad), "inferred"
    except RecordingError as error:
        raise asked.error(error) from error
    except GeneralistError as error:
        if source.name in str(error):
            raise
        raise GeneralistError(f"{source.name}: {error}") from error


def _environment(source: Source, task: str) -> Callable[[], Env] | None:
    """Makes the task's environment; None where it is unknown, or was wrapped otherwise."""
    recorded = source.environment
    options: dict[str, Any] = {}
    if recorded is not None and recorded.task == task:
        if recorded.lost:
            return None
        options = recorded.options
    try:
        get_task(task)
    except UsageError:
        return None
    return functools.partial(make, task, **options)


def _environments_spaces(source: Source, task: str) -> tuple[Space, Space] | None:
    """Those of the task's environment, where there is one."""
    maker = _environment(source, task)
    if maker is None:
        return None
    env = maker()
    try:
        return env.observation_space, env.action_space
    finally:
        env.close()


def _recorded(asked: _Import, processor: GeneralistProcessor, layout: Layout) -> Iterator[Tree]:
    """Observations of the first recordings: they show a background where nothing can be played."""
    steps = 0
    for number, load in asked.numbered(0, "look at frames"):
        try:
            item = load()
            assert isinstance(item, Recording)
            seen = tree_map(lambda leaf: np.asarray(leaf[:EPISODE_STEPS:EVERY]), item.observations)
            processor.encode_observations(seen, layout)  # says what is wrong with them
        except GeneralistError as error:
            if asked.skip_bad:
                continue
            raise asked.error(load.located(number, error)) from error
        yield seen
        if (steps := steps + min(len(item.rewards), EPISODE_STEPS)) >= PLAYED_STEPS:
            return


def _next_number(writer: ShardWriter) -> int:
    """The number of the first recording that was neither written nor left out."""
    manifest: Manifest = writer.manifest
    done = [record["episode"] for record in manifest.records(writer.folder)]
    return max([*done, *map(int, manifest.rejected)], default=-1) + 1


@dataclass
class _Encoder:
    """Reads and encodes; what goes wrong names the recording."""

    task: str
    processor: GeneralistProcessor
    layout: Layout
    use: CodeUse = field(default_factory=CodeUse)

    def __call__(self, number: int, load: Load) -> EncodedEpisode:
        try:
            item = load()
            return self._document(number, item.text) if isinstance(item, Document) else (
                self._episode(number, item)
            )  # fmt: skip
        except GeneralistError as error:
            raise load.located(number, error) from error

    def _episode(self, number: int, recording: Recording) -> EncodedEpisode:
        episode = recording.episode(self.task)
        episode.info["episode"] = number
        encoded = encode_episode(episode, self.processor, self.layout, source=_SOURCE)
        self.use.add(CodeUse.of(episode, encoded.tokens, self.layout))
        return encoded

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
        reasons = (*self._report.reasons, *self._left_out.values())
        self._report.reasons = reasons[:_REASONS]
        self._episodes, self._left_out, self._tokens = [], {}, 0
        self._writer.flush()
