"""Which segments make up a row: drawn, not yet written.

Legend: L = window tokens, S = tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from generalist.data.reader import TaskData
from generalist.errors import GeneralistError

MIN_SEGMENT_TOKENS = 16
"""A gap with less room than this (and a header) is padded: crumbs of episodes teach nothing."""

_CALIBRATION_START = 2**48  # a row number no run comes to
_CALIBRATION_ROWS = 3000
_CALIBRATION_ROUNDS = 2

HeaderOf = Callable[[TaskData, dict[str, Any]], np.ndarray]


class Source:
    """A task as the packer sees it: plain Python numbers, so that a draw costs little."""

    def __init__(
        self, data: TaskData, header_of: HeaderOf, context_steps: int | None = None
    ) -> None:
        if not len(data):
            raise GeneralistError(f"{data.folder} holds no episodes; run `generalist collect`.")
        layout = data.layout
        self.data = data
        self.timestep_tokens = layout.tokens_per_timestep
        self.context_steps = None if layout.is_document else context_steps
        self.action_tokens = layout.action_tokens
        self.action_positions = layout.action_positions
        self.target_mask = layout.target_mask
        self.legal = np.array(layout.legal).T  # (2, k) first legal id of each action, and the end
        self.ordinal = np.zeros(self.timestep_tokens, bool)
        self.ordinal[layout.action_positions] = layout.ordinal
        self.ordinal &= layout.target_mask
        self.steps = data.episodes["steps"].tolist()
        # What an agent did while it was corrected is no demonstration.
        self.demonstrations = [
            i for i, record in enumerate(data.records) if record.get("source") != "dagger"
        ]
        self.prompts = bool(self.demonstrations) and not layout.is_document
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

    def most_steps(self, room: int) -> int:
        """Timesteps of a segment that has so many tokens for them."""
        fit = room // self.timestep_tokens
        return fit if self.context_steps is None else min(fit, self.context_steps)

    def mean_segment_tokens(self, window_tokens: int) -> float:
        """Expected length of a segment that has the whole window for itself."""
        fit = max(1, self.most_steps(window_tokens - self.min_header))
        steps = np.asarray(self.steps, float)
        longest = np.minimum(steps, fit)
        # fit starts at step 0, steps - 1 later ones, the last longest - 1 of which fall short.
        later = (steps - longest) * fit + longest * (longest - 1) / 2
        mean = ((fit * longest + later) / (fit + steps - 1)).mean()
        return self.min_header + mean * self.timestep_tokens


@dataclass(frozen=True, slots=True)
class Segment:
    """A header, perhaps a demonstration with its end token, then timesteps of one episode."""

    source: int  # index of the task
    episode: int
    header: np.ndarray
    demonstration: tuple[int, int, int] | None  # episode, first step, steps
    first: int  # step
    steps: int
    tokens: int  # length of all of it


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
        self.window_tokens, self.seed, self.prompt_fraction = window_tokens, seed, prompt_fraction
        self._least = min(s.least_tokens for s, w in zip(sources, weights, strict=True) if w > 0)
        # Segments are drawn, tokens are what the weights speak of: a task of short episodes
        # must be drawn more often for the same share.
        lengths = [source.mean_segment_tokens(window_tokens) for source in sources]
        self._set_probabilities(np.asarray(weights, float) / lengths)
        if len(sources) > 1:
            self._calibrate(np.asarray(weights, float) / sum(weights))

    def _set_probabilities(self, shares: np.ndarray) -> None:
        """Set how often each task is drawn for a segment."""
        self._probabilities = shares / shares.sum()
        self._cumulative = np.cumsum(self._probabilities)

    def _calibrate(self, weights: np.ndarray) -> None:
        """Correct for what packing does: tasks of short timesteps get the gaps at rows' ends.

        Measured on rows that training never reaches, so rows stay a function of seed and number.
        """
        for number in range(_CALIBRATION_ROUNDS):
            tokens = np.zeros(len(weights))
            first = _CALIBRATION_START + number * _CALIBRATION_ROWS
            for row in range(first, first + _CALIBRATION_ROWS):
                for segment in self.segments(row):
                    tokens[segment.source] += segment.tokens
            measured = tokens / tokens.sum()
            correction = np.divide(weights, measured, out=np.ones_like(weights), where=tokens > 0)
            self._set_probabilities(self._probabilities * correction.clip(0.5, 2.0))

    def segments(self, row: int) -> list[Segment]:
        """The segments of a row: further ones until none fits any more."""
        rng = np.random.default_rng((self.seed, row))
        segments: list[Segment] = []
        room = self.window_tokens
        while room >= self._least:
            index = self._draw_task(rng, room)
            segment = self._draw_segment(index, room, rng)
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

    def _draw_task(self, rng: np.random.Generator, room: int) -> int:
        """A task by weight among those that fit."""
        index = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        if index < len(self.sources) and self.sources[index].least_tokens <= room:
            return index
        fits = np.array([source.least_tokens <= room for source in self.sources])
        probabilities = self._probabilities * fits
        return int(rng.choice(len(fits), p=probabilities / probabilities.sum()))

    def _draw_segment(self, index: int, room: int, rng: np.random.Generator) -> Segment | None:
        """A segment of a task that fits in the room; None where not even its header does."""
        source = self.sources[index]
        size = source.timestep_tokens
        episode = int(rng.integers(len(source.steps)))
        header = source.header(episode)
        used = len(header)
        if room - used < size:
            return None
        demonstration = self._draw_demonstration(source, episode, room - used, rng)
        if demonstration is not None:
            used += demonstration[2] * size + 1
        fit = source.most_steps(room - used)
        steps = source.steps[episode]
        # Starts before the first step count as the first step: so every step of an episode is
        # seen about equally often, the beginning too, where an agent always has to act.
        first = max(0, int(rng.integers(1 - fit, steps)))
        count = min(fit, steps - first)
        return Segment(index, episode, header, demonstration, first, count, used + count * size)

    def _draw_demonstration(
        self, source: Source, episode: int, room: int, rng: np.random.Generator
    ) -> tuple[int, int, int] | None:
        """(episode, first step, steps) of another episode, at most a quarter of the window."""
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
        return other, first, steps
