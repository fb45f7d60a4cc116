"""Training rows: windows of exactly L tokens, packed with segments of several episodes.

A segment is a header, perhaps a demonstration, then whole timesteps of one episode:

    begin, task, instruction, [demonstration timesteps, demonstration end], timesteps ...

Position ids restart at each segment, which is how packed segments are kept apart. A row is a pure
function of (seed, row number), so a run resumes exactly from one integer, on any number of ranks.

Legend: B = rows, L = window tokens, S = tokens of a timestep, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from generalist.data.packing import HeaderOf, Packer, Segment, Source
from generalist.data.reader import TaskData
from generalist.errors import GeneralistError
from generalist.settings import setting_of

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

    @classmethod
    def empty(cls, rows: int, window_tokens: int, pad: int) -> Batch:
        """Rows that are padding only."""
        shape = rows, window_tokens
        return cls(
            np.full(shape, pad, np.int64),
            np.zeros(shape, np.int64),
            np.full(shape, IGNORE, np.int64),
            np.zeros(shape, bool),
            np.full(shape, -1, np.int16),
        )

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
    header_of: header ids for (task data, episode record).
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
        self._pad = vocabulary.special("pad")
        self._demonstration_end = vocabulary.special("demonstration_end")
        self._sources = [
            Source(data, header_of, setting_of(context_steps, data.task)) for data in tasks
        ]
        for source in self._sources:
            if source.least_tokens > window_tokens:
                raise GeneralistError(
                    f"{source.data.task}: a header and a timestep of {source.timestep_tokens} "
                    f"tokens do not fit in a window of {window_tokens}; make the window larger."
                )
        self._positions = np.arange(window_tokens)
        self._packer = Packer(self._sources, weights, window_tokens, seed, prompt_fraction)

    def row(self, index: int) -> Row:
        """Row number `index`."""
        return self.batch(index, 1).row(0)

    def batch(self, start: int, rows: int) -> Batch:
        """Rows start, ..., start + rows - 1."""
        batch = Batch.empty(rows, self.window_tokens, self._pad)
        for number in range(rows):
            row, index = batch.row(number), start + number
            segments = self._packer.segments(index)
            self._write_row(row, segments)
            if self.action_dropout:
                rng = np.random.default_rng((self.seed, _DROPOUT_STREAM, index))
                self._drop_actions(row, segments, rng)
        return batch

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

    def _write_row(self, row: Row, segments: list[Segment]) -> None:
        """Write segments end to end into a row of padding."""
        at = 0
        for segment in segments:
            self._write_segment(row, at, segment)
            at += segment.tokens
        row.position_ids[at:] = self._positions[: self.window_tokens - at]

    def _write_segment(self, row: Row, at: int, segment: Segment) -> None:
        """Write header, demonstration and timesteps at position `at`."""
        source, stop = self._sources[segment.source], at + segment.tokens
        row.position_ids[at:stop] = self._positions[: segment.tokens]
        row.task_index[at:stop] = segment.source
        end = at + len(segment.header)
        row.input_ids[at:end] = segment.header
        if segment.demonstration is not None:
            other, first, steps = segment.demonstration
            size = source.timestep_tokens
            body = end + steps * size
            tokens = source.data.tokens(other)
            row.input_ids[end:body] = tokens[first * size : (first + steps) * size]
            row.input_ids[body] = self._demonstration_end
            end = body + 1
        self._write_timesteps(row, end, stop, source, segment)

    def _drop_actions(self, row: Row, segments: list[Segment], rng: np.random.Generator) -> None:
        """Put random legal ids in the place of the actions of some segments' timesteps."""
        stop = 0
        for segment in segments:
            stop += segment.tokens
            source = self._sources[segment.source]
            if source.data.layout.is_document or rng.random() >= self.action_dropout:
                continue
            tokens = row.input_ids[stop - segment.steps * source.timestep_tokens : stop]
            timesteps = tokens.reshape(segment.steps, source.timestep_tokens)
            first, stop_id = source.legal
            timesteps[:, source.action_positions] = rng.integers(
                first, stop_id, (segment.steps, source.action_tokens)
            )

    @staticmethod
    def _write_timesteps(row: Row, at: int, stop: int, source: Source, segment: Segment) -> None:
        """Copy timesteps, their targets and their ordinal flags."""
        size, k = source.timestep_tokens, source.action_tokens
        first, count = segment.first, segment.steps
        tokens = source.data.tokens(segment.episode)[first * size : (first + count) * size]
        row.input_ids[at:stop] = tokens
        timesteps = tokens.reshape(count, size)
        targets = row.targets[at:stop].reshape(count, size)
        np.copyto(targets, timesteps, where=source.target_mask)
        labels = source.data.labels(segment.episode)
        if labels is not None:
            wanted = labels[first * k : (first + count) * k].reshape(count, k)
            if not source.target_mask[source.action_positions].all():
                wanted = np.where(source.target_mask[source.action_positions], wanted, IGNORE)
            targets[:, source.action_positions] = wanted
        row.ordinal[at:stop].reshape(count, size)[:] = source.ordinal


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
