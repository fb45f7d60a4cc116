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

from generalist.data.packing import HeaderOf, Packer, Segment, Source
from generalist.data.random import key_of, keys_of, words
from generalist.data.reader import TaskData
from generalist.errors import GeneralistError
from generalist.settings import setting_of
from generalist.tokenization.layout import Layout

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
        drawn = self._packer.rows(start, rows)
        ids, starts, task_index = self._gather(drawn)
        positions = np.arange(len(ids)) - starts
        targets = np.full(len(ids), IGNORE, np.int64)
        ordinal = np.zeros(len(ids), bool)
        self._mark_targets(drawn, ids, targets, ordinal)
        if self.action_dropout:
            self._drop_actions(drawn, start, ids)
        flat = ids, positions, targets, ordinal, task_index
        return Batch(*(array.reshape(rows, self.window_tokens) for array in flat))

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

    def _gather(self, drawn: list[list[Segment]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B * L,) ids, where the segment of each begins, and which task it belongs to.

        Rows are gone through once for all their pieces, and put together by a few calls of numpy.
        """
        pieces: list[np.ndarray] = []
        lengths: list[int] = []
        tasks: list[int] = []
        for row in drawn:
            room = self.window_tokens
            for segment in row:
                source = self._sources[segment.source]
                size, data = source.timestep_tokens, source.data
                pieces.append(segment.header)
                if segment.demonstration is not None:
                    other, first, steps = segment.demonstration
                    pieces.append(data.tokens_of(other)[first * size : (first + steps) * size])
                    pieces.append(self._end)
                first, stop = segment.first, segment.first + segment.steps
                pieces.append(data.tokens_of(segment.episode)[first * size : stop * size])
                lengths.append(segment.tokens)
                tasks.append(segment.source)
                room -= segment.tokens
            if room:
                pieces.append(self._padding[:room])
                lengths.append(room)
                tasks.append(-1)
        ids = np.concatenate(pieces).astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        return ids, np.repeat(starts, lengths), np.repeat(np.array(tasks, np.int16), lengths)

    def _bodies(self, drawn: list[list[Segment]]) -> Iterator[tuple[int, Segment]]:
        """Each segment, and where its timesteps begin in the flat batch."""
        for number, row in enumerate(drawn):
            at = number * self.window_tokens
            for segment in row:
                at += segment.tokens
                size = self._sources[segment.source].timestep_tokens
                yield at - segment.steps * size, segment

    def _mark_targets(
        self,
        drawn: list[list[Segment]],
        ids: np.ndarray,
        targets: np.ndarray,
        ordinal: np.ndarray,
    ) -> None:
        """Fill in targets and ordinal flags: the ids that are there, or else the labels."""
        where, flags, labelled, labels = [], [], [], []
        for body, segment in self._bodies(drawn):
            places, data = self._places[segment.source], self._sources[segment.source].data
            count = segment.steps * places.targets_of_a_step
            where.append(places.targets[:count] + body)
            flags.append(places.ordinal[:count])
            own = data.labels_of(segment.episode)
            if own is not None:
                k, stop = places.actions_of_a_step, segment.first + segment.steps
                labelled.append(places.actions[: segment.steps * k] + body)
                labels.append(own[segment.first * k : stop * k])
        found = np.concatenate(where)
        targets[found] = ids[found]
        ordinal[found] = np.concatenate(flags)
        if labelled:
            targets[np.concatenate(labelled)] = np.concatenate(labels)

    def _drop_actions(self, drawn: list[list[Segment]], start: int, ids: np.ndarray) -> None:
        """Put random legal ids in the place of the actions of some segments' timesteps."""
        where, first, count = [], [], []
        for body, segment in self._bodies(drawn):
            places = self._places[segment.source]
            if places.is_document or segment.dropped >= self.action_dropout:
                continue
            actions = segment.steps * places.actions_of_a_step
            where.append(places.actions[:actions] + body)
            first.append(places.legal_first[:actions])
            count.append(places.legal_count[:actions])
        if not where:
            return
        found = np.concatenate(where)
        row, place = np.divmod(found, self.window_tokens)
        keys = keys_of(self._dropout_key, np.arange(start, start + len(drawn), dtype=np.uint64))
        drawn_bits = words(keys[row], place.astype(np.uint64)) >> np.uint64(32)
        chosen = drawn_bits * np.concatenate(count) >> np.uint64(32)
        ids[found] = np.concatenate(first) + chosen.astype(np.int64)


class Places:
    """Where in a segment's timesteps targets and actions stand, for as many as fit in a window.

    targets: (n * targets_of_a_step,) offsets from the first token; ordinal: their flags.
    actions: (n * k,) offsets; legal_first, legal_count: the legal ids at each.
    """

    def __init__(self, layout: Layout, window_tokens: int) -> None:
        size, fit = layout.tokens_per_timestep, window_tokens // layout.tokens_per_timestep
        self.is_document = layout.is_document
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
