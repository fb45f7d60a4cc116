"""Which segments make up a row: drawn, not yet written."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from generalist.shards.index import EpisodeRow
from generalist.windows.demonstrations import Demonstrations
from generalist.windows.folders import Folder
from generalist.windows.random import key_of, keys_of, uniforms

_CALIBRATION_START = 2**48  # a row number no run comes to
_CALIBRATION_ROWS = 8000
_CALIBRATION_ROUNDS = 2

# What is drawn for a segment, by the place of its random number.
_TASK, _EPISODE, _FIRST, _PROMPTED, _OTHER, _FROM_END, _OTHER_FIRST, _DROPPED = range(8)
_NUMBERS = 8
NO_INSTRUCTION = -1  # in place of an instruction's number
_SEGMENTS_AT_ONCE = 8


class Excerpt(NamedTuple):
    """Neighbouring timesteps of an episode.

    Attributes:
        folder: number of its folder.
        episode: the episode.
        first: its first step here.
        steps: how many there are.
    """

    folder: int
    episode: EpisodeRow
    first: int
    steps: int


class Segment(NamedTuple):
    """A header, perhaps a demonstration with its end token, then timesteps of one episode.

    Attributes:
        folder: number of its folder.
        episode: the episode.
        header: ids of the vocabulary's dtype.
        demonstration: what is shown before; None for nothing.
        first: the episode's first step here.
        steps: how many there are; of a document its end is one.
        tokens: length of all of it.
        dropped: random in [0, 1); its actions are hidden if this is below their share, and its
            instruction if it is as near to 1.
        unmatched: whether it was to begin with a demonstration, and no other episode has its
            instruction.
    """

    folder: int
    episode: EpisodeRow
    header: np.ndarray
    demonstration: Excerpt | None
    first: int
    steps: int
    tokens: int
    dropped: float
    unmatched: bool

    @property
    def shown(self) -> float:
        """Random in [0, 1), from the last bits of `dropped`; returns are shown below a share."""
        return self.dropped * 2.0**24 % 1.0


class Packer:
    """Draws the segments of a row, as a pure function of (seed, row number).

    Args:
        folders: the dataset folders.
        weights: share of all tokens that each should get, about; need not sum to one.
        window_tokens: L.
        seed: of the draws.
        prompt_fraction: share of segments that begin with a demonstration.
    """

    def __init__(
        self,
        folders: Sequence[Folder],
        weights: Sequence[float],
        *,
        window_tokens: int,
        seed: int,
        prompt_fraction: float,
        instruction_dropout: float = 0.0,
    ) -> None:
        self.folders = folders
        self.window_tokens, self.prompt_fraction = window_tokens, prompt_fraction
        self.instruction_dropout = instruction_dropout
        self._key = key_of(seed)
        self._demonstrators = _demonstrators(folders)
        # Segments are drawn, tokens are what the weights speak of: a task of short episodes
        # must be drawn more often for the same share.
        lengths = [folder.mean_segment_tokens(window_tokens) for folder in folders]
        self._shares = _Shares(np.asarray(weights, float) / lengths, folders)
        if len(folders) > 1:
            self._calibrate(np.asarray(weights, float) / sum(weights))

    def _calibrate(self, weights: np.ndarray) -> None:
        """Correct for what packing does: tasks of short timesteps get the gaps at rows' ends.

        Measured on rows that training never reaches, so rows stay a function of seed and number.
        """
        for number in range(_CALIBRATION_ROUNDS):
            tokens = np.zeros(len(weights))
            first = _CALIBRATION_START + number * _CALIBRATION_ROWS
            for row in self.rows(first, _CALIBRATION_ROWS):
                for segment in row:
                    tokens[segment.folder] += segment.tokens
            measured = tokens / tokens.sum()
            correction = np.divide(weights, measured, out=np.ones_like(weights), where=tokens > 0)
            corrected = self._shares.probabilities * correction.clip(0.5, 2.0)
            self._shares = _Shares(corrected, self.folders)

    def rows(self, start: int, count: int) -> list[list[Segment]]:
        """The segments of rows `start`, ..., `start + count - 1`, row by row."""
        keys = keys_of(self._key, np.arange(start, start + count, dtype=np.uint64))
        drawn = uniforms(keys, 0, _SEGMENTS_AT_ONCE * _NUMBERS).tolist()
        return [self._row(key, numbers) for key, numbers in zip(keys, drawn, strict=True)]

    def _row(self, key: np.uint64, numbers: list[float]) -> list[Segment]:
        """Segments until none fits any more; `numbers` are the first of the row's own."""
        segments: list[Segment] = []
        room, at = self.window_tokens, 0
        rooms, choices = self._shares.rooms, self._shares.choices
        while room >= rooms[0]:
            if at == len(numbers):
                numbers += uniforms(np.array([key]), at, _SEGMENTS_AT_ONCE * _NUMBERS)[0].tolist()
            own = numbers[at : at + _NUMBERS]
            at += _NUMBERS
            fits, cumulative = choices[bisect_right(rooms, room) - 1]
            index = fits[bisect_right(cumulative, own[_TASK], hi=len(fits) - 1)]
            segment = self._segment(index, room, own)
            if segment is None:  # the header of the drawn episode is longer than most
                break
            segments.append(segment)
            room -= segment.tokens
        return segments

    def _segment(self, index: int, room: int, numbers: list[float]) -> Segment | None:
        """A segment of a task that fits in the room; None where not even its header does."""
        folder = self.folders[index]
        size, demonstrator = folder.timestep_tokens, self._demonstrators[index]
        if numbers[_PROMPTED] >= self.prompt_fraction:
            demonstrator = None
        fit = self._fit(folder, room, prompted=demonstrator is not None)
        number = folder.draw(numbers[_EPISODE], fit)
        episode = folder.row(number)
        # The highest of these numbers, because the lowest hide actions and the task.
        told = numbers[_DROPPED] < 1 - self.instruction_dropout
        header = folder.header(episode.instruction if told else NO_INSTRUCTION)
        used = len(header)
        if room - used < size:
            return None
        demonstration, unmatched = None, False
        if demonstrator is not None:
            other = demonstrator.draw(number, episode.instruction, numbers[_OTHER])
            unmatched = other is None
            if other is not None:
                demonstration = self._excerpt(*other, room - used, numbers)
            if demonstration is not None:
                used += demonstration.steps * folder.demonstration_tokens + 1
        fit = folder.most_steps(room - used)
        # A segment may begin before the first step, and is cut there, or go on past the last one.
        length = episode.steps + folder.end_steps
        start = int(numbers[_FIRST] * (length + fit - 1)) + 1 - fit
        first, stop = max(0, start), min(start + fit, length)
        return Segment(
            index,
            episode,
            header,
            demonstration,
            first,
            stop - first,
            used + (stop - first) * size,
            numbers[_DROPPED],
            unmatched,
        )

    def _fit(self, folder: Folder, room: int, *, prompted: bool) -> int:
        """About how many timesteps a segment will have room for, before its episode is known."""
        left = room - folder.min_header
        if prompted and (steps := self._excerpt_steps(folder, left)) > 0:
            left -= steps * folder.demonstration_tokens + 1
        return max(1, folder.most_steps(left))

    def _excerpt_steps(self, folder: Folder, room: int) -> int:
        """How many timesteps of a demonstration fit: a quarter of the window at most."""
        # In a gap at the end of a row, half of the room stays for what is learned.
        return (min(self.window_tokens // 4, room // 2) - 1) // folder.demonstration_tokens

    def _excerpt(self, index: int, number: int, room: int, numbers: list[float]) -> Excerpt | None:
        """What is shown of another episode of the task; None where there is no room for it."""
        folder = self.folders[index]
        row = folder.row(number)
        steps = min(self._excerpt_steps(folder, room), row.steps)
        if steps < 1:
            return None
        latest = row.steps - steps
        first = latest if numbers[_FROM_END] < 0.5 else int(numbers[_OTHER_FIRST] * (latest + 1))
        return Excerpt(index, row, first, steps)


class _Shares:
    """How often each folder is drawn for a segment, for each set of folders that may fit.

    Args:
        shares: (folders,) how often each is drawn where all fit; need not sum to one.
        folders: the dataset folders.

    Attributes:
        probabilities: (folders,) float64 where all fit.
        rooms: tokens, ascending; from each of these on further folders fit.
        choices: of each room, the folders that fit and their cumulative probabilities.
    """

    def __init__(self, shares: np.ndarray, folders: Sequence[Folder]) -> None:
        self.probabilities = shares / shares.sum()
        drawn = [index for index in range(len(shares)) if shares[index] > 0]
        least = [folders[index].least_tokens for index in drawn]
        self.rooms = sorted(set(least))
        self.choices: list[tuple[list[int], list[float]]] = []
        for room in self.rooms:
            fits = [index for index, tokens in zip(drawn, least, strict=True) if tokens <= room]
            cumulative = np.cumsum(self.probabilities[fits])
            self.choices.append((fits, (cumulative / cumulative[-1]).tolist()))


class _Demonstrator(NamedTuple):
    """Draws demonstrations for the episodes of one folder.

    Attributes:
        demonstrations: those of the folder's task.
        place: of the folder among those of the task.
        folders: number of each folder of the task.
    """

    demonstrations: Demonstrations
    place: int
    folders: list[int]

    def draw(self, episode: int, instruction: int, uniform: float) -> tuple[int, int] | None:
        """Number of a folder and of an episode there; None where none has this instruction."""
        found = self.demonstrations.draw(
            self.place, episode, instruction=instruction, uniform=uniform
        )
        return None if found is None else (self.folders[found[0]], found[1])


def _demonstrators(folders: Sequence[Folder]) -> list[_Demonstrator | None]:
    """What draws demonstrations for each folder; None where actions are text, which has none."""
    by_task: dict[str, list[int]] = {}
    for index, folder in enumerate(folders):
        if not (folder.data.layout.is_document or folder.data.layout.is_written):
            by_task.setdefault(folder.data.task, []).append(index)
    found: list[_Demonstrator | None] = [None] * len(folders)
    for mine in by_task.values():
        demonstrations = Demonstrations([folders[index].data for index in mine])
        for place, index in enumerate(mine):
            found[index] = _Demonstrator(demonstrations, place, mine)
    return found
