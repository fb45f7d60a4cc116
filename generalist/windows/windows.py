"""Training rows: windows of exactly L tokens, packed with segments of several episodes.

A segment is a header, perhaps a demonstration, then whole timesteps of one episode:

    begin, task, instruction, [demonstration timesteps, demonstration end], timesteps ...

Position ids restart at each segment, which is how packed segments are kept apart. A row is a pure
function of (seed, row number), so a run resumes exactly from one integer, on any number of ranks.

Legend: B = rows, L = window tokens, S = tokens of a timestep, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from generalist.errors import GeneralistError
from generalist.settings import setting_of
from generalist.shards.reader import TaskData
from generalist.tokenization.layout import Layout
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
    """What rows consist of, as shares of all their positions; targets as shares of all targets."""

    padding: float
    tokens: dict[str, float]
    targets: dict[str, float]
    targets_per_row: float


class WindowSampler:
    """Rows drawn from tasks by weight.

    tasks: datasets written with one vocabulary.
    weights: share of all tokens that each task should get, about; need not sum to one.
    header_of: header ids for (task data, instruction or None).
    window_tokens: L.
    prompt_fraction: share of segments that begin with a demonstration from another episode of
        the task (Gato, section 2.2: 25%, half of them from an episode's end).
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
            Source(data, header_of, setting_of(context_steps, data.task)) for data in tasks
        ]
        for source in self._sources:
            if source.least_tokens > window_tokens:
                raise GeneralistError(
                    f"{source.data.task}: a header and a timestep of {source.timestep_tokens} "
                    f"tokens do not fit in a window of {window_tokens}; make the window larger."
                )
        self._places = [Places(data.layout, window_tokens) for data in tasks]
        dtype = vocabulary.dtype
        self._padding = np.full(window_tokens, vocabulary.special("pad"), dtype)
        self._end = np.array([vocabulary.special("demonstration_end")], dtype)
        self._dropout_key = key_of(seed, _DROPOUT_STREAM)
        self._packer = Packer(self._sources, weights, window_tokens, seed, prompt_fraction)

    def row(self, index: int) -> Row:
        """Row number `index`."""
        return self.batch(index, 1).row(0)

    def batch(self, start: int, rows: int) -> Batch:
        """Rows start, ..., start + rows - 1."""
        built = _Builder(self._places, self.window_tokens, self._padding, self._end)
        for number, row in enumerate(self._packer.rows(start, rows)):
            for segment in row:
                hidden = segment.dropped < self.action_dropout
                built.add(segment, self._sources[segment.source].data, hidden)
            built.fill_up(number)
        keys = keys_of(self._dropout_key, np.arange(start, start + rows, dtype=np.uint64))
        return built.batch(rows, keys)

    def usage(self, rows: int = 256, start: int = 0) -> Usage:
        """Measure padding and each task's share of tokens and of targets over some rows."""
        batch = self.batch(start, rows)
        has_target = batch.targets != IGNORE
        count = max(1, int(has_target.sum()))
        # Keyed by name: the same task may come from several folders.
        tokens = dict.fromkeys((data.task for data in self.tasks), 0.0)
        targets = dict(tokens)
        for index, data in enumerate(self.tasks):
            mine = batch.task_index == index
            tokens[data.task] += float(mine.mean())
            targets[data.task] += float((mine & has_target).sum() / count)
        padding = float((batch.task_index < 0).mean())
        return Usage(padding, tokens, targets, count / rows)


class Places:
    """Where in a segment's timesteps targets and actions stand, for as many as fit in a window.

    targets: (n * targets_of_a_step,) offsets from the first token; ordinal: their flags.
    actions: (n * k,) offsets; legal_first, legal_count: the legal ids at each.
    """

    def __init__(self, layout: Layout, window_tokens: int) -> None:
        size, fit = layout.tokens_per_timestep, window_tokens // layout.tokens_per_timestep
        self.is_document, self.timestep_tokens = layout.is_document, size
        mask = layout.target_mask
        if not mask[layout.action_positions].all():
            raise GeneralistError("A layout whose action tokens are no targets cannot be trained.")
        steps = size * np.arange(fit)[:, None]
        self.targets = (steps + np.flatnonzero(mask)).ravel()
        self.actions = (steps + layout.action_positions).ravel()
        self.targets_of_a_step, self.actions_of_a_step = int(mask.sum()), layout.action_tokens
        ordinal = np.zeros(size, bool)
        ordinal[layout.action_positions] = layout.ordinal
        self.ordinal = np.tile(ordinal[mask], fit)
        first, stop = np.array(layout.legal).T
        self.legal_first = np.tile(first, fit)
        self.legal_count = np.tile((stop - first).astype(np.uint64), fit)


class _Builder:
    """A batch, put together by a few calls of numpy from the pieces of all its segments."""

    def __init__(
        self, places: Sequence[Places], window_tokens: int, padding: np.ndarray, end: np.ndarray
    ) -> None:
        self._places, self._window_tokens = places, window_tokens
        self._padding, self._end = padding, end
        self._at = 0  # in the flat batch
        self._ids: list[np.ndarray] = []
        self._lengths: list[int] = []  # of segments and padding
        self._tasks: list[int] = []
        self._targets: list[np.ndarray] = []  # where they are
        self._ordinal: list[np.ndarray] = []
        self._labelled: list[np.ndarray] = []  # where targets are not the ids that are there
        self._labels: list[np.ndarray] = []
        self._hidden: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, segment: Segment, data: TaskData, hidden: bool) -> None:
        """The next segment; `hidden`: its actions are not shown."""
        task, episode, header, demonstration, first, steps, length, _ = segment
        places = self._places[task]
        size, k = places.timestep_tokens, places.actions_of_a_step
        ids = self._ids
        ids.append(header)
        if demonstration is not None:
            other, start, count = demonstration
            ids.append(data.tokens_of(other)[start * size : (start + count) * size])
            ids.append(self._end)
        sample = data.sample(episode.sample)
        start = episode.offset + first * size
        ids.append(sample.tokens[start : start + steps * size])
        self._at += length
        body = self._at - steps * size
        count = steps * places.targets_of_a_step
        self._targets.append(places.targets[:count] + body)
        self._ordinal.append(places.ordinal[:count])
        if sample.labels is not None:
            start = (episode.first_step + first) * k
            self._labelled.append(places.actions[: steps * k] + body)
            self._labels.append(sample.labels[start : start + steps * k])
        if hidden and not places.is_document:
            count = steps * k
            legal = places.legal_first[:count], places.legal_count[:count]
            self._hidden.append((places.actions[:count] + body, *legal))
        self._lengths.append(length)
        self._tasks.append(task)

    def fill_up(self, row: int) -> None:
        """Padding up to the end of a row."""
        room = (row + 1) * self._window_tokens - self._at
        if room:
            self._ids.append(self._padding[:room])
            self._lengths.append(room)
            self._tasks.append(-1)
            self._at += room

    def batch(self, rows: int, keys: np.ndarray) -> Batch:
        """All of it; `keys`, (B,) uint64, of the rows' random ids in place of hidden actions."""
        ids = np.concatenate(self._ids).astype(np.int64)
        starts = np.cumsum(self._lengths) - self._lengths
        positions = np.arange(len(ids)) - np.repeat(starts, self._lengths)
        task_index = np.repeat(np.array(self._tasks, np.int16), self._lengths)
        targets, ordinal = np.full(len(ids), IGNORE, np.int64), np.zeros(len(ids), bool)
        where = np.concatenate(self._targets)
        targets[where] = ids[where]
        ordinal[where] = np.concatenate(self._ordinal)
        if self._labelled:
            targets[np.concatenate(self._labelled)] = np.concatenate(self._labels)
        if self._hidden:
            where, first, count = (np.concatenate(part) for part in zip(*self._hidden, strict=True))
            row, place = np.divmod(where, self._window_tokens)
            bits = words(keys[row], place.astype(np.uint64)) >> np.uint64(32)
            ids[where] = first + (bits * count >> np.uint64(32)).astype(np.int64)
        flat = ids, positions, targets, ordinal, task_index
        return Batch(*(array.reshape(rows, self._window_tokens) for array in flat))


def rows_for(step: int, batch_rows: int, rank: int = 0, world: int = 1) -> range:
    """Row numbers of one rank in one training step; `batch_rows` counts the rows of all ranks.

    The rows of a step are the same on any number of ranks, which is what makes a run continue
    where it stopped after the number changed.
    """
    if batch_rows % world:
        raise GeneralistError(
            f"{batch_rows} rows a step cannot be shared by {world} ranks equally."
        )
    share = batch_rows // world
    first = step * batch_rows + rank * share
    return range(first, first + share)


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
