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
from generalist.windows.demonstrations import Demonstrations
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

_IDS_OF_A_BYTE = 2  # no tokenizer makes more of a text, but for a few at its ends
_IDS_AT_ENDS = 16

HeaderOf = Callable[[TaskData, str | None], np.ndarray]


class Source:
    """A task as the packer sees it."""

    def __init__(
        self,
        data: TaskData,
        header_of: HeaderOf,
        *,
        window_tokens: int,
        context_steps: int | None = None,
    ) -> None:
        """Raises GeneralistError where a header leaves no room for a timestep in a window."""
        if not len(data):
            raise GeneralistError(f"{data.folder} holds no episodes; run `generalist collect`.")
        layout = data.layout
        self.data = data
        self.row = data.row
        self.episodes = len(data)
        self.timestep_tokens = layout.tokens_per_timestep
        self.context_steps = None if layout.is_document else context_steps
        self.end_steps = int(layout.is_document)  # the end of a document counts as one
        self._steps = data.steps
        self._header_of = header_of
        self.header = functools.lru_cache(_HEADERS_KEPT)(self._make_header)
        numbers, lengths = self._instructions()
        shortest = numbers[np.argsort(lengths, kind="stable")][:_HEADERS_TRIED].tolist()
        self.min_header = min(len(self.header(number)) for number in shortest)
        self._check(window_tokens, numbers, lengths)

    def _make_header(self, instruction: int) -> np.ndarray:
        """Header ids of episodes with one of the distinct instructions, -1 for none."""
        text = self.data.index.instruction(instruction)
        return np.asarray(self._header_of(self.data, text), self.data.vocabulary.dtype)

    def _instructions(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the instructions that episodes have, -1 among them, and their bytes."""
        lengths = np.append(np.diff(self.data.index.instruction_ends, prepend=0), 0)
        seen = np.zeros(len(lengths), bool)  # the last for none, -1
        for rows in self.data.pieces():
            seen[rows["instruction"]] = True
        found = np.flatnonzero(seen)
        return np.where(found == len(lengths) - 1, -1, found), lengths[found]

    def _check(self, window_tokens: int, numbers: np.ndarray, lengths: np.ndarray) -> None:
        """Raise GeneralistError where a header leaves no room for a timestep in a window."""
        size, room = self.timestep_tokens, window_tokens - self.timestep_tokens
        if self.least_tokens > window_tokens:
            raise GeneralistError(
                f"{self.data.task}: a header and a timestep of {size} tokens do not fit in a "
                f"window of {window_tokens}; make the window larger (data.window_tokens)."
            )
        longest = len(self.header(-1)) + _IDS_OF_A_BYTE * lengths + _IDS_AT_ENDS
        for number in numbers[longest > room].tolist():
            if (tokens := len(self.header(number))) > room:
                raise GeneralistError(
                    f"{self.data.folder}: episode {self._first_with(number)} of {self.data.task} "
                    f"has a header of {tokens} tokens, most of them its instruction. With a "
                    f"timestep of {size} tokens it does not fit in a window of {window_tokens}; "
                    "make the window larger (data.window_tokens) or leave the episode out."
                )

    def _first_with(self, instruction: int) -> int:
        """Number, within the folder, of the first episode with an instruction."""
        first = 0
        for rows in self.data.index.pieces():
            if len(found := np.flatnonzero(rows["instruction"] == instruction)):
                return first + int(found[0])
            first += len(rows)
        raise AssertionError("no episode has this instruction")

    @property
    def least_tokens(self) -> int:
        """Room without which no segment of this task is begun."""
        timesteps = -(-MIN_SEGMENT_TOKENS // self.timestep_tokens)
        return self.min_header + timesteps * self.timestep_tokens

    def most_steps(self, room: int) -> int:
        """How many timesteps of a segment fit into `room` tokens."""
        fit = room // self.timestep_tokens
        return fit if self.context_steps is None else min(fit, self.context_steps)

    def draw(self, uniform: float, fit: int) -> int:
        """Number of an episode, each drawn in proportion to the places of a segment in it.

        A segment of `fit` steps slides over an episode of n steps from where it shows the first
        alone to where it shows the last alone. Of these n + fit - 1 places each step lies in `fit`:
        each step of the task is as likely as any other, however long its episode is.
        """
        beyond = fit - 1 + self.end_steps
        place = int(uniform * (self._steps + self.episodes * beyond))
        if place < self._steps:
            return self.data.episode_at(place)
        return (place - self._steps) // beyond

    def mean_segment_tokens(self, window_tokens: int) -> float:
        """Expected length of a segment that has the whole window for itself."""
        fit = max(1, self.most_steps(window_tokens - self.min_header))
        steps = self._steps + self.episodes * self.end_steps
        places = steps + self.episodes * (fit - 1)
        return self.min_header + fit * steps / places * self.timestep_tokens


class Shown(NamedTuple):
    """Timesteps of an episode that are shown as a demonstration."""

    source: int  # index of its folder
    episode: EpisodeRow
    first: int  # step
    steps: int


class Segment(NamedTuple):
    """A header, perhaps a demonstration with its end token, then timesteps of one episode."""

    source: int  # index of the task's folder
    episode: EpisodeRow
    header: np.ndarray
    demonstration: Shown | None
    first: int  # step
    steps: int  # of a document its end is one
    tokens: int  # length of all of it
    dropped: float  # in [0, 1): its actions are hidden if this is below the share of those
    unmatched: bool  # it was to begin with a demonstration, and no other has its instruction


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
        self._demonstrators = _demonstrators(sources)
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
        return segments

    def _segment(self, index: int, room: int, numbers: list[float]) -> Segment | None:
        """A segment of a task that fits in the room; None where not even its header does."""
        source = self.sources[index]
        size, demonstrator = source.timestep_tokens, self._demonstrators[index]
        if numbers[_PROMPTED] >= self.prompt_fraction:
            demonstrator = None
        fit = self._fit(source, room, prompted=demonstrator is not None)
        number = source.draw(numbers[_EPISODE], fit)
        episode = source.row(number)
        header = source.header(episode.instruction)
        used = len(header)
        if room - used < size:
            return None
        shown, unmatched = None, False
        if demonstrator is not None:
            other = demonstrator.draw(number, episode.instruction, numbers[_OTHER])
            unmatched = other is None
            if other is not None and (shown := self._shown(*other, room - used, numbers)):
                used += shown.steps * size + 1
        fit = source.most_steps(room - used)
        # A segment may begin before the first step, and is cut there, or go on past the last one.
        length = episode.steps + source.end_steps
        start = int(numbers[_FIRST] * (length + fit - 1)) + 1 - fit
        first, stop = max(0, start), min(start + fit, length)
        return Segment(
            index,
            episode,
            header,
            shown,
            first,
            stop - first,
            used + (stop - first) * size,
            numbers[_DROPPED],
            unmatched,
        )

    def _fit(self, source: Source, room: int, *, prompted: bool) -> int:
        """About how many timesteps a segment will have room for, before its episode is known."""
        left = room - source.min_header
        if prompted and (steps := self._shown_steps(source, left)) > 0:
            left -= steps * source.timestep_tokens + 1
        return max(1, source.most_steps(left))

    def _shown_steps(self, source: Source, room: int) -> int:
        """How many timesteps of a demonstration fit: a quarter of the window at most."""
        # In a gap at the end of a row, half of the room stays for what is learned.
        return (min(self.window_tokens // 4, room // 2) - 1) // source.timestep_tokens

    def _shown(self, index: int, number: int, room: int, numbers: list[float]) -> Shown | None:
        """What is shown of another episode of the task; None where there is no room for it."""
        source = self.sources[index]
        row = source.row(number)
        steps = min(self._shown_steps(source, room), row.steps)
        if steps < 1:
            return None
        latest = row.steps - steps
        first = latest if numbers[_FROM_END] < 0.5 else int(numbers[_OTHER_FIRST] * (latest + 1))
        return Shown(index, row, first, steps)


class _Demonstrator(NamedTuple):
    """Draws demonstrations for the episodes of one folder."""

    demonstrations: Demonstrations  # of the folder's task
    place: int  # of the folder among those of the task
    sources: list[int]  # of each folder of the task

    def draw(self, episode: int, instruction: int, uniform: float) -> tuple[int, int] | None:
        """Index of a source and number of an episode there; None where none is like this one."""
        found = self.demonstrations.draw(
            self.place, episode, instruction=instruction, uniform=uniform
        )
        return None if found is None else (self.sources[found[0]], found[1])


def _demonstrators(sources: Sequence[Source]) -> list[_Demonstrator | None]:
    """What draws demonstrations for each source; None for documents, which have none."""
    folders: dict[str, list[int]] = {}
    for index, source in enumerate(sources):
        if not source.data.layout.is_document:
            folders.setdefault(source.data.task, []).append(index)
    found: list[_Demonstrator | None] = [None] * len(sources)
    for mine in folders.values():
        demonstrations = Demonstrations([sources[index].data for index in mine])
        for place, index in enumerate(mine):
            found[index] = _Demonstrator(demonstrations, place, mine)
    return found
