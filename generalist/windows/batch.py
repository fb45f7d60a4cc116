"""Rows as arrays, and how they are put together from their segments.

Legend: B = rows, L = window tokens, V = shown tokens of a timestep, n = timesteps that fit in a
window, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from generalist.shards.index import EpisodeRow
from generalist.shards.reader import TaskData
from generalist.tokenization.compact import QUERIES, TASKS, UNKNOWN_TASK
from generalist.tokenization.layout import ROLES
from generalist.tokenization.outcomes import OUTCOME
from generalist.windows.outcomes import Foreseen, Outcomes
from generalist.windows.packing import Excerpt, Segment
from generalist.windows.palette import (
    HIDDEN,
    LABELLED,
    ORDINAL,
    QUERY,
    ROLE,
    TARGET,
    CompactPattern,
    Palette,
    Pattern,
)
from generalist.windows.random import words
from generalist.windows.returns import ReturnsToGo
from generalist.windows.soft import Soft

_ACTION = ROLES.index("action")
IGNORE = -100
"""Target of a position without a loss; what torch's cross entropy leaves out."""

UNKNOWN_SHARE = 0.05
"""Share of segments in the compact form that do not say which task they are of."""


@dataclass(kw_only=True)
class Given:
    """Tokens of a batch that are embedded together, in the compact form.

    Attributes:
        name: of an embedder, or of a table of vectors.
        ids: (N, K) int64 of the vocabulary; of a table (N, 1) numbers of its rows.
        index: (N,) int64, ascending flat places in the batch; G vectors go to each place and those
            behind it.
    """

    name: str
    ids: np.ndarray
    index: np.ndarray

    def within(self, first: int, stop: int) -> Given:
        """What lies at flat places from `first` to before `stop`; places count from `first` on."""
        part = slice(*np.searchsorted(self.index, (first, stop)))
        return Given(name=self.name, ids=self.ids[part], index=self.index[part] - first)


@dataclass(kw_only=True)
class Batch:
    """Rows of a training step.

    Attributes:
        input_ids: (B, L) int64.
        position_ids: (B, L) int64, restarting at 0 with each segment and at padding.
        targets: (B, L) int64; targets[b, j] is the label for token j, so it is to be predicted from
            the hidden state at j - 1, or at j where that is a query; IGNORE where there is no loss.
        query: (B, L) bool, True where an action token is to be predicted and is not shown.
        ordinal: (B, L) bool, True where token j is a target whose neighbours are near in value.
        task_index: (B, L) int16, which dataset folder a token is from; -1 at padding.
        role: (B, L) uint8, what a token is for, a number of ROW_ROLES.
        weight: (B, L) float32, factor on the loss of a target, of either sign; 0 where there is
            none.
        count: (B, L) float32, a target's part of what the loss is divided by, never negative.
        given: what is embedded together, in the compact form; empty in the flat form.
        foreseen: outcomes that are to be predicted; empty without a world model.
        soft: distributions that stand in place of targets; None where there are none.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    targets: np.ndarray
    query: np.ndarray
    ordinal: np.ndarray
    task_index: np.ndarray
    role: np.ndarray
    weight: np.ndarray
    count: np.ndarray
    given: tuple[Given, ...] = ()
    foreseen: tuple[Foreseen, ...] = ()
    soft: Soft | None = None

    def split(self, rows: int) -> Iterator[Batch]:
        """Batches of `rows` rows, the last perhaps of fewer.

        Args:
            rows: rows of each.

        Yields:
            Batches whose arrays are views of these.
        """
        apart = ("given", "foreseen", "soft")
        names = [each.name for each in fields(self) if each.name not in apart]
        for first in range(0, len(self.input_ids), rows):
            stop = first + rows
            places = first * self.input_ids.shape[1], stop * self.input_ids.shape[1]
            given = tuple(each.within(*places) for each in self.given)
            foreseen = tuple(each.within(*places) for each in self.foreseen)
            soft = None if self.soft is None else self.soft.within(*places)
            own = {name: getattr(self, name)[first:stop] for name in names}
            yield Batch(**own, given=given, foreseen=foreseen, soft=soft)


class BatchBuilder:
    """Puts rows together by a few calls of numpy from the pieces of all their segments.

    Call `add` for each segment of a row, then `end_row`; after the last row, `batch`.

    Args:
        folders: the data of each dataset folder.
        palette: the pieces besides them.
        labels: whether targets are the labels of whoever knows better, where there are some; else
            what was executed.
    """

    def __init__(
        self, folders: Sequence[TaskData], palette: Palette, *, labels: bool = True
    ) -> None:
        self._folders, self._palette, self._use_labels = folders, palette, labels
        self._room = palette.window_tokens  # in the row
        self._place = 0  # in the batch
        self._given: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}  # ids and places
        self._foreseen: dict[str, list[Foreseen]] = {}
        self._ids: list[np.ndarray] = []
        self._kinds: list[np.ndarray] = []
        self._lengths: list[int] = []  # of segments and padding
        self._sources: list[int] = []  # the folder of each; -1 for padding
        self._labels: list[np.ndarray] = []  # where these are the targets
        self._soft: list[Soft] = []
        self._legal: list[tuple[np.ndarray, np.ndarray]] = []  # where actions are hidden

    def add(
        self,
        segment: Segment,
        *,
        hidden: bool,
        to_go: ReturnsToGo | None = None,
        shown: bool = False,
        outcomes: Outcomes | None = None,
    ) -> None:
        """Append a segment to the row.

        Args:
            segment: the segment; it fits into the row's room.
            hidden: whether random legal ids are shown in place of its actions.
            to_go: returns-to-go of the folder's episodes, which are its values.
            shown: whether these are shown. What a return belongs to was executed, so the targets
                are the executed actions then.
            outcomes: outcomes in the folder's episodes, to be predicted.
        """
        self._ids.append(segment.header)
        self._kinds.append(self._palette.is_header[: len(segment.header)])
        pattern = self._palette.patterns[segment.folder]
        if isinstance(pattern, CompactPattern):
            self._add_compact(segment, pattern, to_go, shown=shown)
            if outcomes is not None:
                self._add_outcomes(segment, pattern, outcomes)
        else:
            self._add_flat(segment, pattern, hidden=hidden)
        if self._use_labels and not shown:
            self._add_soft(segment, pattern)
        self._lengths.append(segment.tokens)
        self._sources.append(segment.folder)
        self._room -= segment.tokens
        self._place += segment.tokens

    def _add_flat(self, segment: Segment, pattern: Pattern, *, hidden: bool) -> None:
        ids, kinds = self._ids, self._kinds
        if segment.demonstration is not None:
            self._add_demonstration(segment.demonstration, pattern)
        folder, episode, first = segment.folder, segment.episode, segment.first
        steps = segment.steps
        sample = self._folders[folder].sample(episode.sample)
        size, k = pattern.stored_tokens, pattern.actions_of_a_step
        start = episode.offset + first * size
        is_end = first + steps > episode.steps  # the last step is the end of a document
        stored = sample.tokens[start : start + (steps - is_end) * size]
        if pattern.is_stored:
            ids.append(stored)
        else:
            rewards = sample.rewards[episode.first_step : episode.first_step + episode.steps]
            ids.append(pattern.view.show(stored, rewards, first))
        if is_end:
            ids.append(self._palette.document_end)
        kind, labels = 0, sample.labels if self._use_labels else None
        if labels is not None:
            start = (episode.first_step + first) * k
            own = labels[start : start + steps * k]
            self._labels.append(own)
            kind = 1
            if pattern.is_written:  # what is read before a token is what should have been written
                ids[-1] = ids[-1].copy()
                ids[-1].reshape(steps, -1)[:, -k:] = own.reshape(steps, k)
        if hidden and not pattern.is_text:
            self._legal.append((pattern.legal_first[: steps * k], pattern.legal_count[: steps * k]))
            kind += 2
        kinds.append(pattern.kinds[kind][: steps * pattern.timestep_tokens])

    def _add_compact(
        self, segment: Segment, pattern: CompactPattern, to_go: ReturnsToGo | None, *, shown: bool
    ) -> None:
        # So that the vector of unknown tasks is learned, some segments do not say theirs.
        task = UNKNOWN_TASK if segment.dropped < UNKNOWN_SHARE else pattern.task
        self._give(TASKS, np.array([[task]]), np.array([self._place]))
        place = self._place + len(segment.header)
        if segment.demonstration is not None:
            place += self._add_compact_demonstration(segment.demonstration, pattern, place)
        episode, first, steps = segment.episode, segment.first, segment.steps
        stored = self._timesteps(segment.folder, episode, first, steps)
        size, k = pattern.timestep_tokens, len(pattern.chosen)
        places = place + size * np.arange(steps)
        if pattern.shows_taken:
            taken = places + size - 1
            again = np.repeat(stored[:, pattern.given], 2, axis=0)
            self._give(pattern.observation, again, np.stack([places, taken], axis=1).ravel())
            self._give(pattern.action, stored[:, pattern.chosen], taken)
        else:
            self._give(pattern.observation, stored[:, pattern.given], places)
        self._kinds.append(pattern.kinds[: steps * size])
        labels = self._folders[segment.folder].sample(episode.sample).labels
        if labels is None or shown or not self._use_labels:
            targets = stored[:, pattern.chosen]
        else:
            start = (episode.first_step + first) * k
            targets = labels[start : start + steps * k].reshape(steps, k)
        ids = self._palette.separators[: steps * size]
        if pattern.is_written:  # what is read before a token is what should have been written
            ids = ids.reshape(steps, size).copy()
            ids[:, size - k :] = targets
        elif k > 1:
            asked = (places + pattern.first_query)[:, None] + np.arange(k - 1)
            self._give(QUERIES, np.tile(pattern.queries, (steps, 1)), asked.ravel())
        self._ids.append(ids.ravel())
        if pattern.has_value and to_go is not None:
            bins = to_go.bins(episode)[first : first + steps, None]
            # Behind a large text vocabulary, ids are beyond what the type of bins holds.
            values = pattern.first_return + bins.astype(np.int64)
            targets = np.concatenate([values, targets], axis=1)
            if shown:
                self._give(str(pattern.returns), values, places + pattern.value_place + 1)
        self._labels.append(targets.ravel())

    def _add_soft(self, segment: Segment, pattern: Pattern | CompactPattern) -> None:
        """Have distributions predicted where there are some; the segment was just appended."""
        soft_labels = self._folders[segment.folder].sample(segment.episode.sample).soft_labels
        if soft_labels is None:
            return
        size, steps = pattern.timestep_tokens, segment.steps
        first = self._place + segment.tokens - steps * size
        step, ids, mass = soft_labels.of(segment.episode.first_step + segment.first, steps)
        self._soft.append(Soft(index=first + step * size + pattern.label_place, ids=ids, mass=mass))

    def _add_outcomes(self, segment: Segment, pattern: CompactPattern, outcomes: Outcomes) -> None:
        """Have the outcomes of a segment's actions predicted; the segment was just appended."""
        episode, first, steps = segment.episode, segment.first, segment.steps
        size, weights = pattern.timestep_tokens, pattern.outcome_weights
        assert weights is not None, "a folder with outcomes has weights for them"
        end = self._place + segment.tokens
        stored = self._timesteps(segment.folder, episode, first, steps + 1)[:, pattern.given]
        before, after = stored[:steps], stored[1:]
        is_last = len(after) < steps  # of the last action no observation is stored
        if is_last:
            after = np.concatenate([after, before[-1:]])
        weight = np.tile(weights, (steps, 1))
        weight[steps - 1 :, OUTCOME:] *= not is_last
        codes = outcomes.codes(episode)[first : first + steps]
        found = Foreseen(
            name=pattern.observation,
            index=end - 1 - size * np.arange(steps)[::-1],
            before=before,
            ids=np.concatenate([pattern.outcome_ids(codes), after], axis=1),
            weight=weight,
        )
        self._foreseen.setdefault(pattern.observation, []).append(found)

    def _add_compact_demonstration(
        self, shown: Excerpt, pattern: CompactPattern, place: int
    ) -> int:
        """Append a demonstration and its end; returns how many positions they take."""
        stored = self._timesteps(shown.folder, shown.episode, shown.first, shown.steps)
        size = pattern.demonstration_tokens
        places = place + size * np.arange(shown.steps)
        self._give(pattern.observation, stored[:, pattern.given], places)
        self._give(pattern.action, stored[:, pattern.chosen], places + size - 1)
        count = shown.steps * size
        self._ids += [self._palette.separators[:count], self._palette.demonstration_end]
        self._kinds += [pattern.roles[:count], self._palette.is_header[:1]]
        return count + 1

    def _timesteps(self, folder: int, episode: EpisodeRow, first: int, steps: int) -> np.ndarray:
        """(steps, S) ids of neighbouring timesteps of an episode, as they are stored."""
        data = self._folders[folder]
        stored = data.tokens_of(episode).reshape(episode.steps, -1)
        return stored[first : first + steps]

    def _give(self, name: str, ids: np.ndarray, places: np.ndarray) -> None:
        """Have (N, K) tokens embedded, each row at its place in the batch and those behind it."""
        found = self._given.setdefault(name, ([], []))
        found[0].append(ids)
        found[1].append(places)

    def _add_demonstration(self, shown: Excerpt, pattern: Pattern) -> None:
        data = self._folders[shown.folder]
        episode, first, steps = shown.episode, shown.first, shown.steps
        size = pattern.stored_tokens
        tokens = data.tokens_of(episode)[first * size : (first + steps) * size]
        if not pattern.is_stored:
            rewards = data.sample(episode.sample).rewards
            own = rewards[episode.first_step : episode.first_step + episode.steps]
            tokens = pattern.view.show(tokens, own, first)
        self._ids += [tokens, self._palette.demonstration_end]
        roles = pattern.roles[: steps * pattern.timestep_tokens]
        self._kinds += [roles, self._palette.is_header[:1]]

    def end_row(self) -> None:
        """Append padding up to the end of the row."""
        if self._room:
            self._ids.append(self._palette.padding[: self._room])
            self._kinds.append(self._palette.is_padding[: self._room])
            self._lengths.append(self._room)
            self._sources.append(-1)
            self._place += self._room
        self._room = self._palette.window_tokens

    def batch(self, keys: np.ndarray) -> Batch:
        """All rows that were added.

        Args:
            keys: (B,) uint64, of the random ids that are shown in place of hidden actions.
        """
        ids = np.concatenate(self._ids).astype(np.int64)
        kinds = np.concatenate(self._kinds)
        lengths = np.array(self._lengths)
        positions = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        folder = np.repeat(np.array(self._sources, np.int16), lengths)
        role = kinds & ROLE
        targets = np.where(kinds & TARGET > 0, ids, IGNORE)
        if self._labels:
            targets[np.flatnonzero(kinds & LABELLED)] = np.concatenate(self._labels)
        # No action is `pad`: it fills what a text leaves of its slot.
        targets[(targets == self._palette.padding[0]) & (role == _ACTION)] = IGNORE
        if self._legal:
            self._hide(ids, np.flatnonzero(kinds & HIDDEN), keys)
        weight = (targets != IGNORE).astype(np.float32)
        if self._palette.losses is not None:
            weight *= self._palette.losses[folder, role]
        shape = len(keys), self._palette.window_tokens
        return Batch(
            input_ids=ids.reshape(shape),
            position_ids=positions.reshape(shape),
            targets=targets.reshape(shape),
            query=(kinds & QUERY > 0).reshape(shape),
            ordinal=(kinds & ORDINAL > 0).reshape(shape),
            task_index=folder.reshape(shape),
            role=role.reshape(shape),
            weight=weight.reshape(shape),
            count=weight.copy().reshape(shape),  # weights by role are not negative
            given=tuple(
                Given(
                    name=name,
                    ids=np.concatenate(tokens).astype(np.int64),
                    index=np.concatenate(places),
                )
                for name, (tokens, places) in sorted(self._given.items())
            ),
            foreseen=tuple(Foreseen.joined(each) for _, each in sorted(self._foreseen.items())),
            soft=Soft.joined(self._soft),
        )

    def _hide(self, ids: np.ndarray, where: np.ndarray, keys: np.ndarray) -> None:
        """Replace the ids at these places by random legal ones."""
        first, count = (np.concatenate(part) for part in zip(*self._legal, strict=True))
        row, place = np.divmod(where, self._palette.window_tokens)
        bits = words(keys[row], place.astype(np.uint64)) >> np.uint64(32)
        # Multiply and shift: from 32 random bits to a number below `count`.
        ids[where] = first + (bits * count >> np.uint64(32)).astype(np.int64)
