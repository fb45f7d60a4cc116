"""A dataset folder as the packer sees it: headers that fit, and episodes drawn by their steps.

Legend: L = window tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from generalist.errors import GeneralistError
from generalist.shards.reader import TaskData
from generalist.tokenization.compact import CompactForm
from generalist.tokenization.outcomes import OUTCOME
from generalist.windows.outcomes import Outcomes, Worlds
from generalist.windows.returns import Returns, ReturnsToGo
from generalist.windows.views import View

MIN_SEGMENT_TOKENS = 12
"""A gap with less room than this (and a header) is padded: crumbs of episodes teach nothing."""

_HEADERS_KEPT = 4096  # of a folder
_ROWS_KEPT = 4096  # of a folder's index
_HEADERS_TRIED = 1024  # of a folder, to learn how short they are
_IDS_OF_A_BYTE = 2  # no tokenizer makes more of a text, but for a few at its ends
_IDS_AT_ENDS = 16

HeaderOf = Callable[[TaskData, str | None], np.ndarray]


class Folder:
    """A dataset folder as the packer sees it: what segments can be drawn from it, and their size.

    Args:
        data: its episodes.
        view: what is shown of their timesteps.
        header_of: ids at the head of a segment, for the data and an instruction or None.
        window_tokens: L.
        context_steps: most timesteps of a segment; None for as many as fit.
        form: the compact form; None in the flat form.
        returns: how returns appear; None where they do not.
        worlds: how outcomes of actions are predicted; None where they are not.

    Attributes:
        data: as given.
        view: as given.
        form: as given, but None for documents.
        to_go: the returns-to-go of episodes; None where the task has none.
        value_weight: weight of the loss of their values.
        outcomes: the outcomes in episodes; None where the task has none.
        outcome_weights: (3 + K,) float32, of the losses of an outcome and of each of the K tokens
            of the observation that follows; None where the task has none.
        episodes: how many there are.
        row: the index row of an episode by its number; cached.
        header: header ids by the number of an instruction, -1 for none; cached.
        timestep_tokens: positions of a timestep.
        demonstration_tokens: positions of a timestep of a demonstration.
        context_steps: as given, but None for documents.
        end_steps: 1 for documents, whose end counts as a step; else 0.
        min_header: tokens of the shortest header.

    Raises:
        GeneralistError: there are no episodes, or a header leaves no room for a timestep in a
            window.
    """

    def __init__(
        self,
        data: TaskData,
        view: View,
        header_of: HeaderOf,
        *,
        window_tokens: int,
        context_steps: int | None = None,
        form: CompactForm | None = None,
        returns: Returns | None = None,
        worlds: Worlds | None = None,
    ) -> None:
        if not len(data):
            raise GeneralistError(f"{data.folder} holds no episodes; run `generalist collect`.")
        is_document = data.layout.is_document
        self.data, self.view = data, view
        self.row = functools.lru_cache(_ROWS_KEPT)(data.row)
        self.episodes = len(data)
        self.form = None if is_document else form
        self.timestep_tokens = self.demonstration_tokens = view.tokens_per_timestep
        if self.form is not None:
            self.timestep_tokens = self.form.timestep_positions(data.layout)
            self.demonstration_tokens = self.form.positions
        self.context_steps = None if is_document else context_steps
        self.to_go: ReturnsToGo | None = None
        self.value_weight = 0.0
        if returns is not None and data.task in returns.tasks:
            self.to_go = ReturnsToGo(data, returns.tasks[data.task])
            self.value_weight = returns.weight
        self.outcomes: Outcomes | None = None
        self.outcome_weights: np.ndarray | None = None
        if worlds is not None and data.task in worlds.tasks:
            self.outcomes = Outcomes(data, worlds.tasks[data.task])
            tokens = len(data.layout.positions.of_role("observation"))
            weights = [worlds.outcome] * OUTCOME + [worlds.observation / tokens] * tokens
            self.outcome_weights = np.array(weights, np.float32)
        self.end_steps = int(is_document)  # the end of a document counts as one
        self._steps = data.steps
        self._header_of = header_of
        self.header = functools.lru_cache(_HEADERS_KEPT)(self._make_header)
        numbers, lengths = self._instructions()
        shortest = numbers[np.argsort(lengths, kind="stable")][:_HEADERS_TRIED].tolist()
        self.min_header = min(len(self.header(number)) for number in shortest)
        self._check(window_tokens, numbers, lengths)

    def _make_header(self, instruction: int) -> np.ndarray:
        """Header ids of episodes with the instruction of this number, -1 for none."""
        text = self.data.index.instruction(instruction)
        return np.asarray(self._header_of(self.data, text), self.data.vocabulary.dtype)

    def _instructions(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the instructions that episodes have, -1 for none, and their bytes."""
        lengths = np.append(np.diff(self.data.index.instruction_ends, prepend=0), 0)
        seen = np.zeros(len(lengths), bool)  # the last for none, -1
        for rows in self.data.pieces():
            seen[rows["instruction"]] = True
        found = np.flatnonzero(seen)
        return np.where(found == len(lengths) - 1, -1, found), lengths[found]

    def _check(self, window_tokens: int, numbers: np.ndarray, lengths: np.ndarray) -> None:
        """Raise GeneralistError where a header leaves no room for a timestep in a window."""
        size, room = self.timestep_tokens, window_tokens - self.timestep_tokens
        shortest = len(self.header(-1))
        longest = shortest + _IDS_OF_A_BYTE * lengths + _IDS_AT_ENDS
        for number in numbers[longest > room].tolist():
            if (tokens := len(self.header(number))) > room >= shortest:
                raise GeneralistError(
                    f"{self.data.folder}: episode {self._first_with(number)} of {self.data.task} "
                    f"has a header of {tokens} tokens, most of them its instruction. With a "
                    f"timestep of {size} tokens it does not fit in a window of {window_tokens}; "
                    "make the window larger (data.window_tokens) or leave the episode out."
                )
        if self.least_tokens > window_tokens:
            raise GeneralistError(
                f"{self.data.task}: a header and a timestep of {size} tokens do not fit in a "
                f"window of {window_tokens}; make the window larger (data.window_tokens)."
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
        """How many timesteps of a segment fit into `room` tokens, at most `context_steps`."""
        fit = room // self.timestep_tokens
        return fit if self.context_steps is None else min(fit, self.context_steps)

    def draw(self, uniform: float, fit: int) -> int:
        """Draw an episode, each in proportion to the places of a segment in it.

        A segment of `fit` steps slides over an episode of n steps from where it shows the first
        alone to where it shows the last alone. Of these n + fit - 1 places each step lies in `fit`:
        each step of the task is as likely as any other, however long its episode is.

        Args:
            uniform: a random number in [0, 1).
            fit: timesteps of the segment.

        Returns:
            Number of the episode.
        """
        beyond = fit - 1 + self.end_steps
        place = int(uniform * (self._steps + self.episodes * beyond))
        if place < self._steps:
            return self.data.episode_at(place)
        return (place - self._steps) // beyond

    def mean_segment_tokens(self, window_tokens: int) -> float:
        """Expected tokens of a segment that has the whole window for itself."""
        fit = max(1, self.most_steps(window_tokens - self.min_header))
        steps = self._steps + self.episodes * self.end_steps
        places = steps + self.episodes * (fit - 1)
        return self.min_header + fit * steps / places * self.timestep_tokens
