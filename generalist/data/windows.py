"""Training rows: windows of exactly L tokens, packed with segments of several episodes.

A segment is a header, perhaps a demonstration, then whole timesteps of one episode:

    begin, task, instruction, [demonstration timesteps, demonstration end], timesteps ...

Position ids restart at each segment, which is how packed segments are kept apart. A row is a pure
function of (seed, row number), so a run resumes exactly from one integer, on any number of ranks.

Legend: B = rows, L = window tokens, S = tokens of a timestep, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from generalist.data.reader import TaskData
from generalist.errors import GeneralistError

IGNORE = -100
"""Target of a position without a loss; what torch's cross entropy leaves out."""

MIN_SEGMENT_TOKENS = 16
"""A gap with less room than this (and a header) is padded: crumbs of episodes teach nothing."""

HeaderOf = Callable[[TaskData, dict[str, Any]], np.ndarray]


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


class _Source:
    """A task as the sampler sees it: plain Python numbers, so that a draw costs little."""

    def __init__(self, data: TaskData, header_of: HeaderOf) -> None:
        if not len(data):
            raise GeneralistError(f"{data.folder} holds no episodes; run `generalist collect`.")
        layout = data.layout
        self.data = data
        self.timestep_tokens = layout.tokens_per_timestep
        self.action_tokens = layout.action_tokens
        self.action_positions = layout.action_positions
        self.target_mask = layout.target_mask
        self.ordinal = np.zeros(self.timestep_tokens, bool)
        self.ordinal[layout.action_positions] = layout.ordinal
        self.ordinal &= layout.target_mask
        self.steps = data.episodes["steps"].tolist()
        self.prompts = not layout.is_document
        # What an agent did while it was corrected is no demonstration.
        experts = [i for i, r in enumerate(data.records) if r.get("source") != "dagger"]
        self.demonstrations = experts or list(range(len(data)))
        self._header_of = header_of
        self._headers: dict[str | None, np.ndarray] = {}
        self.min_header = min(len(self.header(i)) for i in self._one_an_instruction())

    def _one_an_instruction(self) -> list[int]:
        seen: dict[str | None, int] = {}
        for index, record in enumerate(self.data.records):
            seen.setdefault(record.get("instruction"), index)
        return list(seen.values())

    def header(self, episode: int) -> np.ndarray:
        """Header ids of an episode; one a distinct instruction is made and kept."""
        record = self.data.record(episode)
        key = record.get("instruction")
        if key not in self._headers:
            self._headers[key] = np.asarray(self._header_of(self.data, record), np.int64)
        return self._headers[key]

    @property
    def least_tokens(self) -> int:
        """Room without which no segment of this task is begun."""
        timesteps = -(-MIN_SEGMENT_TOKENS // self.timestep_tokens)
        return self.min_header + timesteps * self.timestep_tokens


class WindowSampler:
    """Rows drawn from tasks by weight.

    tasks: datasets written with one vocabulary.
    weights: share of all tokens that each task should get, about; need not sum to one.
    header_of: header ids for (task data, episode record).
    window_tokens: L.
    prompt_fraction: share of segments that begin with a demonstration from another episode of
        the task (Gato, section 2.2: 25%, half of them from an episode's end).
    """

    def __init__(
        self,
        tasks: Sequence[TaskData],
        weights: Sequence[float],
        header_of: HeaderOf,
        window_tokens: int = 1024,
        seed: int = 0,
        prompt_fraction: float = 0.25,
    ) -> None:
        _check(tasks, weights)
        vocabulary = tasks[0].vocabulary
        self.window_tokens, self.seed, self.prompt_fraction = window_tokens, seed, prompt_fraction
        self.tasks = list(tasks)
        self._pad = vocabulary.special("pad")
        self._demonstration_end = vocabulary.special("demonstration_end")
        self._sources = [_Source(data, header_of) for data in tasks]
        for source in self._sources:
            if source.least_tokens > window_tokens:
                raise GeneralistError(
                    f"{source.data.task}: a header and a timestep of {source.timestep_tokens} "
                    f"tokens do not fit in a window of {window_tokens}; make the window larger."
                )
        self._positions = np.arange(window_tokens)
        drawn = [s.least_tokens for s, w in zip(self._sources, weights, strict=True) if w > 0]
        self._least = min(drawn)
        # Segments are drawn, tokens are what the weights speak of: a task of short episodes
        # must be drawn more often for the same share.
        lengths = [self._mean_segment_tokens(source) for source in self._sources]
        shares = np.asarray(weights, float) / lengths
        self._probabilities = shares / shares.sum()
        self._cumulative = np.cumsum(self._probabilities)

    def _mean_segment_tokens(self, source: _Source) -> float:
        """Expected length of a segment that has the whole window for itself."""
        fit = max(1, (self.window_tokens - source.min_header) // source.timestep_tokens)
        steps = np.asarray(source.steps, float)
        longest = np.minimum(steps, fit)
        # fit starts at step 0, steps - 1 later ones, the last longest - 1 of which fall short.
        later = (steps - longest) * fit + longest * (longest - 1) / 2
        mean = ((fit * longest + later) / (fit + steps - 1)).mean()
        return source.min_header + mean * source.timestep_tokens

    def row(self, index: int) -> Row:
        """Row number `index`."""
        return self.batch(index, 1).row(0)

    def batch(self, start: int, rows: int) -> Batch:
        """Rows start, ..., start + rows - 1."""
        batch = Batch.empty(rows, self.window_tokens, self._pad)
        for number in range(rows):
            self._fill(batch.row(number), np.random.default_rng((self.seed, start + number)))
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

    def _fill(self, row: Row, rng: np.random.Generator) -> None:
        """Write segments into a row of padding until none fits any more."""
        filled = 0
        while self.window_tokens - filled >= self._least:
            index = self._draw_task(rng, self.window_tokens - filled)
            length = self._write_segment(row, filled, index, rng)
            if not length:  # the header of the drawn episode is longer than most
                break
            filled += length
        if not filled:
            raise GeneralistError(
                f"An instruction of {self.tasks[index].task} does not fit in a window of "
                f"{self.window_tokens} tokens; make the window larger."
            )
        row.position_ids[filled:] = self._positions[: self.window_tokens - filled]

    def _draw_task(self, rng: np.random.Generator, room: int) -> int:
        """A task by weight among those that fit."""
        index = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        if index < len(self._sources) and self._sources[index].least_tokens <= room:
            return index
        fits = np.array([source.least_tokens <= room for source in self._sources])
        probabilities = self._probabilities * fits
        return int(rng.choice(len(fits), p=probabilities / probabilities.sum()))

    def _write_segment(self, row: Row, at: int, index: int, rng: np.random.Generator) -> int:
        """Draw a segment of a task, write it at position `at`; returns its tokens (0: no room)."""
        source = self._sources[index]
        episode = int(rng.integers(len(source.steps)))
        header = source.header(episode)
        room = self.window_tokens - at - len(header)
        size = source.timestep_tokens
        if room < size:
            return 0
        end = at + len(header)
        row.input_ids[at:end] = header
        demonstration = self._draw_demonstration(source, episode, room, rng)
        if demonstration is not None:
            row.input_ids[end : end + len(demonstration)] = demonstration
            row.input_ids[end + len(demonstration)] = self._demonstration_end
            end += len(demonstration) + 1
        fit = (self.window_tokens - end) // size
        steps = source.steps[episode]
        # Starts before the first step count as the first step: so every step of an episode is
        # seen about equally often, the beginning too, where an agent always has to act.
        first = max(0, int(rng.integers(1 - fit, steps)))
        count = min(fit, steps - first)
        stop = end + count * size
        self._write_timesteps(row, end, stop, source, episode, first, count)
        row.position_ids[at:stop] = self._positions[: stop - at]
        row.task_index[at:stop] = index
        return stop - at

    def _draw_demonstration(
        self, source: _Source, episode: int, room: int, rng: np.random.Generator
    ) -> np.ndarray | None:
        """Timesteps of another episode, at most a quarter of the window; mostly None."""
        if not source.prompts or rng.random() >= self.prompt_fraction:
            return None
        others, size = source.demonstrations, source.timestep_tokens
        if len(others) < 2:
            return None
        other = others[int(rng.integers(len(others) - 1))]
        other = others[-1] if other == episode else other
        from_end = rng.random() < 0.5
        # In a gap at the end of a row, half of the room stays for what is learned.
        most = (min(self.window_tokens // 4, room // 2) - 1) // size
        steps = min(most, source.steps[other])
        if steps < 1:
            return None
        latest = source.steps[other] - steps
        first = latest if from_end else int(rng.integers(latest + 1))
        return source.data.tokens(other)[first * size : (first + steps) * size]

    @staticmethod
    def _write_timesteps(
        row: Row, at: int, stop: int, source: _Source, episode: int, first: int, count: int
    ) -> None:
        """Copy timesteps, their targets and their ordinal flags."""
        size, k = source.timestep_tokens, source.action_tokens
        tokens = source.data.tokens(episode)[first * size : (first + count) * size]
        row.input_ids[at:stop] = tokens
        timesteps = tokens.reshape(count, size)
        targets = row.targets[at:stop].reshape(count, size)
        np.copyto(targets, timesteps, where=source.target_mask)
        labels = source.data.labels(episode)
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
    first = tasks[0]
    for data in tasks[1:]:
        if data.vocabulary.fingerprint != first.vocabulary.fingerprint:
            raise GeneralistError(
                f"{first.folder} and {data.folder} were written with different vocabularies, "
                f"{first.vocabulary.fingerprint} and {data.vocabulary.fingerprint}."
            )
