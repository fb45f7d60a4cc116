"""Training rows: windows of exactly L tokens, packed with segments of several episodes.

A segment is a header, perhaps a demonstration, then whole timesteps of one episode:

    begin, task, instruction, [demonstration timesteps, demonstration end], timesteps ...

A document ends with the id `end`, a target like its text, so that the model learns to stop.
Position ids restart at each segment, which is how packed segments are kept apart. A row is a pure
function of (seed, row number), so a run resumes exactly from one integer, on any number of ranks.

Legend: B = rows, L = window tokens, S = tokens of a timestep, k = action tokens of a timestep.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from generalist.errors import GeneralistError
from generalist.settings import setting_of
from generalist.shards.reader import TaskData
from generalist.tokenization.layout import Layout
from generalist.windows.mixture import check_layouts
from generalist.windows.packing import HeaderOf, Packer, Segment, Source
from generalist.windows.random import key_of, keys_of, words

IGNORE = -100
"""Target of a position without a loss; what torch's cross entropy leaves out."""


_DROPOUT_STREAM = 0x64726F70  # keeps its random numbers apart from the packer's


@dataclass
class Batch:
    """Rows of a training step.

    input_ids: (B, L) int64.
    position_ids: (B, L) int64, restarting at 0 with each segment and at padding.
    targets: (B, L) int64; targets[b, j] is the label for token j, so it is to be predicted from
        the hidden state at j - 1; IGNORE where there is no loss.
    ordinal: (B, L) bool, True where token j is an action token whose neighbours are near in value.
    task_index: (B, L) int16, which task a token belongs to; -1 at padding.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    targets: np.ndarray
    ordinal: np.ndarray
    task_index: np.ndarray

    def split(self, rows: int) -> Iterator[Batch]:
        """Batches of so many rows, the last perhaps of fewer; views."""
        for first in range(0, len(self.input_ids), rows):
            yield Batch(*(array[first : first + rows] for array in vars(self).values()))

    def row(self, index: int) -> Row:
        """Views of one row."""
        return Row(*(array[index] for array in vars(self).values()))


@dataclass
class Row:
    """One row of a Batch: the same arrays, each (L,)."""

    input_ids: np.ndarray
    position_ids: np.ndarray
    targets: np.ndarray
    ordinal: np.ndarray
    task_index: np.ndarray


@dataclass(frozen=True)
class Usage:
    """What rows consist of, by task.

    padding, tokens: shares of all positions. targets: shares of all targets.
    segments: how many there are; prompted: how many of them begin with a demonstration; unmatched:
        how many more would, had another episode their instruction.
    """

    padding: float
    tokens: dict[str, float]
    targets: dict[str, float]
    targets_per_row: float
    segments: dict[str, int]
    prompted: dict[str, int]
    unmatched: dict[str, int]


class WindowSampler:
    """Rows drawn from tasks by weight.

    tasks: datasets written with one vocabulary.
    weights: share of all tokens that each task should get, about; need not sum to one.
    header_of: header ids for (task data, instruction or None).
    window_tokens: L.
    prompt_fraction: share of segments that begin with a demonstration from another episode of
        the task with the same instruction (Gato, section 2.2: 25%, half of them from an episode's
        end). Those of an episode whose instruction no other has begin without.
    action_dropout: share of segments whose timesteps show random legal ids in place of the
        actions that were taken. Targets stay. Without it a model soon learns to repeat the last
        action, which in an expert's episode is nearly always right, long before it learns what
        the expert looks at; acting on its own, it then repeats its mistakes (de Haan et al. 2019,
        "Causal Confusion in Imitation Learning").
    context_steps: most timesteps of a segment, texts apart; as many as fit where it is None. By
        task where it is a mapping, as `generalist.settings.setting_of` reads it.
    """

    def __init__(
        self,
        tasks: Sequence[TaskData],
        weights: Sequence[float],
        header_of: HeaderOf,
        window_tokens: int = 1024,
        seed: int = 0,
        prompt_fraction: float = 0.25,
        action_dropout: float = 0.0,
        context_steps: int | Mapping[str, int] | None = None,
    ) -> None:
        _check(tasks, weights)
        vocabulary = tasks[0].vocabulary
        self.window_tokens, self.seed, self.prompt_fraction = window_tokens, seed, prompt_fraction
        self.action_dropout = action_dropout
        self.tasks = list(tasks)
        self._sources = [
            Source(
                data,
                header_of,
                window_tokens=window_tokens,
                context_steps=setting_of(context_steps, data.task),
            )
            for data in tasks
        ]
        self._places = [Places(data.layout, window_tokens) for data in tasks]
        dtype = vocabulary.dtype
        self._padding = np.full(window_tokens, vocabulary.special("pad"), dtype)
        self._ends = Ends(
            demonstration=np.array([vocabulary.special("demonstration_end")], dtype),
            document=np.array([vocabulary.special("end")], dtype),
        )
        self._dropout_key = key_of(seed, _DROPOUT_STREAM)
        self._packer = Packer(self._sources, weights, window_tokens, seed, prompt_fraction)

    def row(self, index: int) -> Row:
        """Row number `index`."""
        return self.batch(index, 1).row(0)

    def batch(self, start: int, rows: int) -> Batch:
        """Rows start, ..., start + rows - 1."""
        built = _Builder(self.tasks, self._places, self.window_tokens, self._padding, self._ends)
        for row in self._packer.rows(start, rows):
            for segment in row:
                built.add(segment, hidden=segment.dropped < self.action_dropout)
            built.end_row()
        keys = keys_of(self._dropout_key, np.arange(start, start + rows, dtype=np.uint64))
        return built.batch(keys)

    def usage(self, rows: int = 256, start: int = 0) -> Usage:
        """Measure over some rows what they consist of."""
        batch = self.batch(start, rows)
        has_target = batch.targets != IGNORE
        count = max(1, int(has_target.sum()))
        # Keyed by name: the same task may come from several folders.
        names = [data.task for data in self.tasks]
        tokens, targets = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
        for index, name in enumerate(names):
            mine = batch.task_index == index
            tokens[name] += float(mine.mean())
            targets[name] += float((mine & has_target).sum() / count)
        segments, prompted, unmatched = (dict.fromkeys(names, 0) for _ in range(3))
        for segment in itertools.chain.from_iterable(self._packer.rows(start, rows)):
            name = names[segment.source]
            segments[name] += 1
            prompted[name] += segment.demonstration is not None
            unmatched[name] += segment.unmatched
        return Usage(
            padding=float((batch.task_index < 0).mean()),
            tokens=tokens,
            targets=targets,
            targets_per_row=count / rows,
            segments=segments,
            prompted=prompted,
            unmatched=unmatched,
        )


class Places:
    """What the tokens of a segment's timesteps are, for as many timesteps as fit in a window.

    kinds: (labelled + 2 * hidden) -> (n * S,) uint8, the bits below of each token.
    legal_first, legal_count: (n * k,) the legal ids at each action token.
    """

    TARGET, ORDINAL, LABELLED, HIDDEN = 1, 2, 4, 8

    def __init__(self, layout: Layout, window_tokens: int) -> None:
        size, fit = layout.tokens_per_timestep, window_tokens // layout.tokens_per_timestep
        self.is_document, self.timestep_tokens = layout.is_document, size
        self.actions_of_a_step = layout.action_tokens
        if not layout.target_mask[layout.action_positions].all():
            raise GeneralistError("A layout whose action tokens are no targets cannot be trained.")
        kinds = layout.target_mask * np.uint8(self.TARGET)
        kinds[layout.action_positions] |= layout.ordinal * np.uint8(self.ORDINAL)
        self.kinds = []
        for bits in (0, self.LABELLED, self.HIDDEN, self.LABELLED | self.HIDDEN):
            step = kinds.copy()
            step[layout.action_positions] |= np.uint8(bits)
            self.kinds.append(np.tile(step, fit))
        first, stop = np.array(layout.legal).T
        self.legal_first = np.tile(first, fit)
        self.legal_count = np.tile((stop - first).astype(np.uint64), fit)


class Ends(NamedTuple):
    """The ids, (1,) each, that close a demonstration and a document."""

    demonstration: np.ndarray
    document: np.ndarray


class _Builder:
    """A batch, put together by a few calls of numpy from the pieces of all its segments."""

    def __init__(
        self,
        tasks: Sequence[TaskData],
        places: Sequence[Places],
        window_tokens: int,
        padding: np.ndarray,
        ends: Ends,
    ) -> None:
        self._data, self._places, self._window_tokens = tasks, places, window_tokens
        self._padding, self._ends = padding, ends
        self._no_loss = np.zeros(window_tokens, np.uint8)  # kinds of headers and padding
        self._room = window_tokens  # in the row
        self._ids: list[np.ndarray] = []
        self._kinds: list[np.ndarray] = []
        self._lengths: list[int] = []  # of segments and padding
        self._tasks: list[int] = []
        self._labels: list[np.ndarray] = []  # where these are the targets
        self._legal: list[tuple[np.ndarray, np.ndarray]] = []  # where actions are hidden

    def add(self, segment: Segment, *, hidden: bool) -> None:
        """The next segment; `hidden`: its actions are not shown."""
        task, episode, first, steps = segment.source, segment.episode, segment.first, segment.steps
        places, ids = self._places[task], self._ids
        size, k = places.timestep_tokens, places.actions_of_a_step
        ids.append(segment.header)
        if (shown := segment.demonstration) is not None:
            tokens = self._data[shown.source].tokens_of(shown.episode)
            ids.append(tokens[shown.first * size : (shown.first + shown.steps) * size])
            ids.append(self._ends.demonstration)
        sample = self._data[task].sample(episode.sample)
        start = episode.offset + first * size
        if first + steps <= episode.steps:
            ids.append(sample.tokens[start : start + steps * size])
        else:  # the last one is the end of a document
            ids += [sample.tokens[start : start + (steps - 1) * size], self._ends.document]
        kind, labels = 0, sample.labels
        if labels is not None:
            start = (episode.first_step + first) * k
            self._labels.append(labels[start : start + steps * k])
            kind = 1
        if hidden and not places.is_document:
            self._legal.append((places.legal_first[: steps * k], places.legal_count[: steps * k]))
            kind += 2
        body = steps * size
        self._kinds += [self._no_loss[: segment.tokens - body], places.kinds[kind][:body]]
        self._lengths.append(segment.tokens)
        self._tasks.append(task)
        self._room -= segment.tokens

    def end_row(self) -> None:
        """Padding up to the end of the row."""
        if self._room:
            self._ids.append(self._padding[: self._room])
            self._kinds.append(self._no_loss[: self._room])
            self._lengths.append(self._room)
            self._tasks.append(-1)
        self._room = self._window_tokens

    def batch(self, keys: np.ndarray) -> Batch:
        """All rows; `keys`, (B,) uint64, of their random ids in place of hidden actions."""
        ids = np.concatenate(self._ids).astype(np.int64)
        kinds = np.concatenate(self._kinds)
        lengths = np.array(self._lengths)
        positions = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        task_index = np.repeat(np.array(self._tasks, np.int16), lengths)
        targets = np.where(kinds & Places.TARGET, ids, IGNORE)
        if self._labels:
            targets[np.flatnonzero(kinds & Places.LABELLED)] = np.concatenate(self._labels)
        if self._legal:
            where = np.flatnonzero(kinds & Places.HIDDEN)
            first, count = (np.concatenate(part) for part in zip(*self._legal, strict=True))
            row, place = np.divmod(where, self._window_tokens)
            bits = words(keys[row], place.astype(np.uint64)) >> np.uint64(32)
            # Multiply and shift: from 32 random bits to a number below `count`.
            ids[where] = first + (bits * count >> np.uint64(32)).astype(np.int64)
        flat = ids, positions, targets, (kinds & Places.ORDINAL) > 0, task_index
        return Batch(*(array.reshape(len(keys), self._window_tokens) for array in flat))


def _check(tasks: Sequence[TaskData], weights: Sequence[float]) -> None:
    if not tasks or len(tasks) != len(weights):
        raise GeneralistError(f"Got {len(tasks)} tasks and {len(weights)} weights.")
    if min(weights) < 0 or not sum(weights) > 0:
        raise GeneralistError(f"Weights must not be negative, and one must be positive: {weights}.")
    widest = max(tasks, key=lambda data: data.vocabulary.size)
    for data in tasks:
        if not widest.vocabulary.begins_with(data.vocabulary):
            raise GeneralistError(
                f"{widest.folder} and {data.folder} were written with different vocabularies, "
                f"{widest.vocabulary.fingerprint} and {data.vocabulary.fingerprint}."
            )
    check_layouts(tasks)
