"""Which segments make up a row: drawn, not yet written.

Legend: L = window tokens, S = tokens of a timestep.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from generalist.errors import GeneralistError
from generalist.shards.index import EpisodeRow
from generalist.shards.reader import TaskData
from generalist.windows.random import key_of, keys_of, uniforms

MIN_SEGMENT_TOKENS = 12
"""A gap with less room than this (and a header) is padded: crumbs of episodes teach nothing."""

_CALIBRATION_START = 2**48  # a row number no run comes to
_CALIBRATION_ROWS = 8000
_CALIBRATION_ROUNDS = 2
_HEADERS_KEPT = 4096  # of a task
_HEADERS_TRIED = 1024  # of a task, to learn how short they are

# What is drawn for a segment, by the place of its random number.
_TASK, _EPISODE, _FIRST, _PROMPTED, _OTHER, _FROM_END, _OTHER_FIRST, _DROPPED = range(8)
_NUMBERS = 8
_SEGMENTS_AT_ONCE = 8

HeaderOf = Callable[[TaskData, str | None], np.ndarray]


class Source:
    """A task as the packer sees it."""

    def __init__(
        self, data: TaskData, header_of: HeaderOf, context_steps: int | None = None
    ) -> None:
        if not len(data):
            raise GeneralistError(f"{data.folder} holds no episodes; run `generalist collect`.")
        layout = data.layout
        self.data = data
        self.row = data.row
        self.episodes = len(data)
        self.timestep_tokens = layout.tokens_per_timestep
        self.context_steps = None if layout.is_document else context_steps
        # What an agent did while it was corrected is no demonstration.
        self.demonstrations = data.demonstrations
        self.prompts = len(self.demonstrations) > 1 and not layout.is_document
        self._header_of = header_of
        self.header = functools.lru_cache(_HEADERS_KEPT)(self._make_header)
        self.min_header = min(len(self.header(number)) for number in self._short_instructions())

    def _make_header(self, instruction: int) -> np.ndarray:
        """Header ids of episodes with one of the distinct instructions, -1 for none."""
        text = self.data.index.instruction(instruction)
        return np.asarray(self._header_of(self.data, text), self.data.vocabulary.dtype)

    def _short_instructions(self) -> list[int]:
        """The instructions among which that of the shortest header is sought."""
        lengths = np.diff(self.data.index.instruction_ends, prepend=0)
        seen = np.zeros(len(lengths) + 1, bool)  # the last for none, -1
        for rows in self.data.pieces():
            seen[rows["instruction"]] = True
        found = np.flatnonzero(seen[:-1])
        shortest = found[np.argsort(lengths[found], kind="stable")][:_HEADERS_TRIED].tolist()
        return shortest + [-1] * bool(seen[-1])

    @property
    def least_tokens(self) -> int:
        """Room without which no segment of this task is begun."""
        timesteps = -(-MIN_SEGMENT_TOKENS // self.timestep_tokens)
        return self.min_header + timesteps * self.timestep_tokens

    def most_steps(self, room: int) -> int:
        """Timesteps of a segment that has so many tokens for them."""
        fit = room // self.timestep_tokens
        return fit if self.context_steps is None else min(fit, self.context_steps)

    def mean_segment_tokens(self, window_tokens: int) -> float:
        """Expected length of a segment that has the whole window for itself."""
        fit = max(1, self.most_steps(window_tokens - self.min_header))
        total = 0.0
        for rows in self.data.pieces():
            steps = rows["steps"].astype(float)
            longest = np.minimum(steps, fit)
            # fit starts at step 0, steps - 1 later ones, the last longest - 1 of which fall short.
            later = (steps - longest) * fit + longest * (longest - 1) / 2
            total += float(((fit * longest + later) / (fit + steps - 1)).sum())
        return self.min_header + total / self.episodes * self.timestep_tokens


class Segment(NamedTuple):
    """A header, perhaps a demonstration with its end token, then timesteps of one episode."""

    source: int  # index of the task
    episode: EpisodeRow
    header: np.ndarray
    demonstration: tuple[EpisodeRow, int, int] | None  # of what, first step, steps
    first: int  # step
    steps: int
    tokens: int  # length of all of it
    dropped: float  # in [0, 1): its actions are hidden if this is below the share of those


class Packer:
    """Draws the segments of a row, as a pure function of (seed, row number)."""

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        window_tokens: int,
        seed: int,
        prompt_fraction: float,
    ) -> None:
        self.sources = sources
        self.window_tokens, self.prompt_fraction = window_tokens, prompt_fraction
        self._key = key_of(seed)
        # Segments are drawn, tokens are what the weights speak of: a task of short episodes
        # must be drawn more often for the same share.
        lengths = [source.mean_segment_tokens(window_tokens) for source in sources]
        self._set_probabilities(np.asarray(weights, float) / lengths)
        if len(sources) > 1:
            self._calibrate(np.asarray(weights, float) / sum(weights))

    def _set_probabilities(self, shares: np.ndarray) -> None:
        """Set how often each task is drawn for a segment, for each set of tasks that may fit."""
        self._probabilities = shares / shares.sum()
        drawn = [index for index in range(len(shares)) if shares[index] > 0]
        least = [self.sources[index].least_tokens for index in drawn]
        self._rooms = sorted(set(least))  # from each of these on, further tasks fit
        self._choices = []
        for room in self._rooms:
            fits = [index for index, tokens in zip(drawn, least, strict=True) if tokens <= room]
            cumulative = np.cumsum(self._probabilities[fits])
            self._choices.append((fits, (cumulative / cumulative[-1]).tolist()))

    def _calibrate(self, weights: np.ndarray) -> None:
        """Correct for what packing does: tasks of short timesteps get the gaps at rows' ends.

        Measured on rows that training never reaches, so rows stay a function of seed and number.
        """
        for number in range(_CALIBRATION_ROUNDS):
            tokens = np.zeros(len(weights))
            first = _CALIBRATION_START + number * _CALIBRATION_ROWS
            for row in self.rows(first, _CALIBRATION_ROWS):
                for segment in row:
                    tokens[segment.source] += segment.tokens
            measured = tokens / tokens.sum()
            correction = np.divide(weights, measured, out=np.ones_like(weights), where=tokens > 0)
            self._set_probabilities(self._probabilities * correction.clip(0.5, 2.0))

    def rows(self, start: int, count: int) -> list[list[Segment]]:
        """The segments of rows start, ..., start + count - 1."""
        keys = keys_of(self._key, np.arange(start, start + count, dtype=np.uint64))
        drawn = uniforms(keys, 0, _SEGMENTS_AT_ONCE * _NUMBERS).tolist()
        return [self._row(key, numbers) for key, numbers in zip(keys, drawn, strict=True)]

    def _row(self, key: np.uint64, numbers: list[float]) -> list[Segment]:
        """Segments until none fits any more; `numbers` are the first of the row's own."""
        segments: list[Segment] = []
        room, at, index = self.window_tokens, 0, 0
        while room >= self._rooms[0]:
            if at == len(numbers):
                numbers += uniforms(np.array([key]), at, _SEGMENTS_AT_ONCE * _NUMBERS)[0].tolist()
            own = numbers[at : at + _NUMBERS]
            at += _NUMBERS
            fits, cumulative = self._choices[bisect_right(self._rooms, room) - 1]
            index = fits[bisect_right(cumulative, own[_TASK], hi=len(fits) - 1)]
            segment = self._segment(index, room, own)
            if segment is None:  # the header of the drawn episode is longer than most
                break
            segments.append(segment)
            room -= segment.tokens
        if not segments:
            raise GeneralistError(
                f"An instruction of {self.sources[index].data.task} does not fit in a window of "
                f"{self.window_tokens} tokens; make the window larger."
            )
        return segments

    def _segment(self, index: int, room: int, numbers: list[float]) -> Segment | None:
        """A segment of a task that fits in the room; None where not even its header does."""
        source = self.sources[index]
        size = source.timestep_tokens
        number = int(numbers[_EPISODE] * source.episodes)
        episode = source.row(number)
        header = source.header(episode.instruction)
        used = len(header)
        if room - used < size:
            return None
        demonstration = None
        if source.prompts and numbers[_PROMPTED] < self.prompt_fraction:
            demonstration = self._demonstration(source, number, room - used, numbers)
            if demonstration is not None:
                used += demonstration[2] * size + 1
        fit = source.most_steps(room - used)
        # Starts before the first step count as the first step: so every step of an episode is
        # seen about equally often, the beginning too, where an agent always has to act.
        first = max(0, int(numbers[_FIRST] * (episode.steps + fit - 1)) + 1 - fit)
        steps = min(fit, episode.steps - first)
        tokens = used + steps * size
        return Segment(
            index, episode, header, demonstration, first, steps, tokens, numbers[_DROPPED]
        )

    def _demonstration(
        self, source: Source, episode: int, room: int, numbers: list[float]
    ) -> tuple[EpisodeRow, int, int] | None:
        """(of what, first step, steps) of another episode, at most a quarter of the window."""
        others, size = source.demonstrations, source.timestep_tokens
        other = int(others[int(numbers[_OTHER] * (len(others) - 1))])
        row = source.row(int(others[-1]) if other == episode else other)
        # In a gap at the end of a row, half of the room stays for what is learned.
        steps = min((min(self.window_tokens // 4, room // 2) - 1) // size, row.steps)
        if steps < 1:
            return None
        latest = row.steps - steps
        first = latest if numbers[_FROM_END] < 0.5 else int(numbers[_OTHER_FIRST] * (latest + 1))
        return row, first, steps
