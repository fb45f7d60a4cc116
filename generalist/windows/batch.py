"""Rows as arrays, and how they are put together from their segments.

Legend: B = rows, L = window tokens, V = shown tokens of a timestep, n = timesteps that fit in a
window, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from generalist.errors import GeneralistError
from generalist.shards.index import EpisodeRow
from generalist.shards.reader import TaskData
from generalist.tokenization.compact import (
    QUERIES,
    TASKS,
    UNKNOWN_TASK,
    CompactForm,
    signatures_of,
)
from generalist.tokenization.layout import ROLES
from generalist.windows.folders import Folder
from generalist.windows.packing import Excerpt, Segment
from generalist.windows.random import words
from generalist.windows.views import View

IGNORE = -100
"""Target of a position without a loss; what torch's cross entropy leaves out."""

ROW_ROLES = (*ROLES, "header", "padding")
"""What tokens of a row are for: the roles of timesteps, those of demonstrations too, and these."""

UNKNOWN_SHARE = 0.05
"""Share of segments in the compact form that do not say which task they are of."""

_HEADER, _PADDING = ROW_ROLES.index("header"), ROW_ROLES.index("padding")

# A token's kind, a byte: its role in the lowest three bits, and these.
_ROLE = 7
_TARGET, _ORDINAL = 8, 16
_LABELLED = 32  # its target is not itself but the label
_HIDDEN = 64  # a random legal id is shown in its place
_QUERY = 128  # it is not shown: its target is predicted from its own place


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
        """What lies at flat places from `first` to before `stop`, which are counted anew."""
        part = slice(*np.searchsorted(self.index, (first, stop)))
        return Given(name=self.name, ids=self.ids[part], index=self.index[part] - first)


@dataclass(kw_only=True)
class Batch:
    """Rows of a training step.

    input_ids: (B, L) int64.
    position_ids: (B, L) int64, restarting at 0 with each segment and at padding.
    targets: (B, L) int64; targets[b, j] is the label for token j, so it is to be predicted from
        the hidden state at j - 1, or at j where that is a query; IGNORE where there is no loss.
    query: (B, L) bool, True where an action token is to be predicted and is not shown.
    ordinal: (B, L) bool, True where token j is a target whose neighbours are near in value.
    task_index: (B, L) int16, which dataset folder a token is from; -1 at padding.
    role: (B, L) uint8, what a token is for, a number of ROW_ROLES.
    weight: (B, L) float32, factor on the loss of a target, of either sign; 0 where there is none.
    count: (B, L) float32, how much a target counts in what the loss is divided by, never negative.
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

    def split(self, rows: int) -> Iterator[Batch]:
        """Batches of `rows` rows, the last perhaps of fewer; views of these arrays."""
        names = [each.name for each in fields(self) if each.name != "given"]
        for first in range(0, len(self.input_ids), rows):
            stop = first + rows
            places = first * self.input_ids.shape[1], stop * self.input_ids.shape[1]
            given = tuple(each.within(*places) for each in self.given)
            yield Batch(**{name: getattr(self, name)[first:stop] for name in names}, given=given)


class Pattern:
    """What the tokens of a segment's timesteps are, for as many timesteps as fit in a window.

    stored_tokens, timestep_tokens: of a timestep as it is stored and as it is shown.
    roles: (n * V,) uint8. kinds: (labelled + 2 * hidden) -> (n * V,) uint8.
    legal_first, legal_count: (n * k,) the legal ids at each action token.
    """

    def __init__(self, view: View, window_tokens: int) -> None:
        positions, fit = view.positions, window_tokens // view.tokens_per_timestep
        self.view, self.is_stored = view, view.is_stored
        self.is_document = view.layout.is_document
        self.stored_tokens = view.layout.tokens_per_timestep
        self.timestep_tokens = view.tokens_per_timestep
        self.actions_of_a_step = int(positions.chosen.sum())
        self.loss = np.zeros(len(ROW_ROLES), np.float32)  # weight by role
        self.loss[positions.role] = view.loss
        self.roles = np.tile(positions.role, fit)
        has_loss = view.loss != 0
        kinds = positions.role + has_loss * np.uint8(_TARGET)
        kinds += (has_loss & (positions.bins >= 0)) * np.uint8(_ORDINAL)
        self.kinds = [
            np.tile(kinds + positions.chosen * np.uint8(bits), fit)
            for bits in (0, _LABELLED, _HIDDEN, _LABELLED | _HIDDEN)
        ]
        first, stop = positions.first[positions.chosen], positions.stop[positions.chosen]
        self.legal_first = np.tile(first, fit)
        self.legal_count = np.tile((stop - first).astype(np.uint64), fit)


class CompactPattern:
    """What the positions of a segment's timesteps are in the compact form.

    Args:
        task: the task's name.
        view: what is shown of its timesteps; all that is stored.
        form: the form of the model.
        window_tokens: L.

    Attributes:
        task: number of the task.
        observation, action: names of their embedders.
        timestep_tokens: positions of a timestep, G + k - 1.
        demonstration_tokens: positions of a timestep of a demonstration, G.
        given, chosen: (K,) and (k,) int64, which stored tokens are embedded, and which are the
            action.
        queries: (k - 1, 1) int64, numbers of the queries.
        loss: (roles,) float32, weight of the loss by role.
        roles: (L,) uint8, of the positions of a demonstration.
        kinds: (n * (G + k - 1),) uint8.

    Raises:
        GeneralistError: the view is not that of what is stored.
    """

    def __init__(self, task: str, view: View, form: CompactForm, *, window_tokens: int) -> None:
        layout = view.layout
        if not view.is_stored or set(view.loss[view.positions.chosen]) != {1.0}:
            raise GeneralistError(f"{task}: the compact form shows timesteps as they are stored.")
        self.task = form.number_of(task)
        self.observation, self.action = (each.name for each in signatures_of(layout))
        self.timestep_tokens = form.timestep_positions(layout)
        self.demonstration_tokens = form.positions
        positions = layout.positions
        self.given, self.chosen = (positions.of_role(each) for each in ("observation", "action"))
        self.queries = np.arange(len(self.chosen) - 1)[:, None]
        self.loss = np.zeros(len(ROW_ROLES), np.float32)
        self.loss[ROLES.index("action")] = 1
        self.roles = np.full(window_tokens, ROLES.index("observation"), np.uint8)
        is_ordinal = positions.bins[positions.chosen] >= 0
        kinds = ROLES.index("action") | (is_ordinal * np.uint8(_ORDINAL))
        kinds |= np.uint8(_TARGET | _LABELLED | _QUERY)
        kinds = np.concatenate([self.roles[: form.positions - 1], kinds]).astype(np.uint8)
        self.kinds = np.tile(kinds, window_tokens // self.timestep_tokens)


class Palette:
    """The pieces that rows of a sampler are put together from, besides the episodes.

    patterns: of each dataset folder. window_tokens: L.
    padding, separators: (L,) ids. demonstration_end, document_end: (1,) ids.
    is_header, is_padding: (L,) kinds.
    losses: (folders, roles) weights, None where they are 0 and 1 alone.
    """

    def __init__(self, folders: Sequence[Folder], window_tokens: int) -> None:
        vocabulary = folders[0].data.vocabulary
        special, dtype = vocabulary.special, vocabulary.dtype
        self.window_tokens = window_tokens
        self.patterns = [_pattern_of(folder, window_tokens) for folder in folders]
        self.padding = np.full(window_tokens, special("pad"), dtype)
        self.separators = np.full(window_tokens, special("separator"), dtype)
        self.demonstration_end = np.array([special("demonstration_end")], dtype)
        self.document_end = np.array([special("end")], dtype)
        self.is_header = np.full(window_tokens, _HEADER, np.uint8)
        self.is_padding = np.full(window_tokens, _PADDING, np.uint8)
        losses = np.stack([pattern.loss for pattern in self.patterns])
        self.losses = None if np.isin(losses, (0, 1)).all() else losses


def _pattern_of(folder: Folder, window_tokens: int) -> Pattern | CompactPattern:
    if folder.form is None:
        return Pattern(folder.view, window_tokens)
    return CompactPattern(folder.data.task, folder.view, folder.form, window_tokens=window_tokens)


class BatchBuilder:
    """Puts rows together by a few calls of numpy from the pieces of all their segments."""

    def __init__(self, folders: Sequence[TaskData], palette: Palette) -> None:
        self._folders, self._palette = folders, palette
        self._room = palette.window_tokens  # in the row
        self._place = 0  # in the batch
        self._given: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}  # ids and places
        self._ids: list[np.ndarray] = []
        self._kinds: list[np.ndarray] = []
        self._lengths: list[int] = []  # of segments and padding
        self._sources: list[int] = []  # the folder of each; -1 for padding
        self._labels: list[np.ndarray] = []  # where these are the targets
        self._legal: list[tuple[np.ndarray, np.ndarray]] = []  # where actions are hidden

    def add(self, segment: Segment, *, hidden: bool) -> None:
        """Append a segment to the row; `hidden`: its actions are not shown."""
        self._ids.append(segment.header)
        self._kinds.append(self._palette.is_header[: len(segment.header)])
        pattern = self._palette.patterns[segment.folder]
        if isinstance(pattern, CompactPattern):
            self._add_compact(segment, pattern)
        else:
            self._add_flat(segment, pattern, hidden=hidden)
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
        kind, labels = 0, sample.labels
        if labels is not None:
            start = (episode.first_step + first) * k
            self._labels.append(labels[start : start + steps * k])
            kind = 1
        if hidden and not pattern.is_document:
            self._legal.append((pattern.legal_first[: steps * k], pattern.legal_count[: steps * k]))
            kind += 2
        kinds.append(pattern.kinds[kind][: steps * pattern.timestep_tokens])

    def _add_compact(self, segment: Segment, pattern: CompactPattern) -> None:
        # So that the vector of unknown tasks is learned, some segments do not say theirs.
        task = UNKNOWN_TASK if segment.dropped < UNKNOWN_SHARE else pattern.task
        self._give(TASKS, np.array([[task]]), np.array([self._place]))
        place = self._place + len(segment.header)
        if (shown := segment.demonstration) is not None:
            stored = self._timesteps(shown.folder, shown.episode, shown.first, shown.steps)
            size = pattern.demonstration_tokens
            places = place + size * np.arange(shown.steps)
            self._give(pattern.observation, stored[:, pattern.given], places)
            self._give(pattern.action, stored[:, pattern.chosen], places + size - 1)
            self._ids += [
                self._palette.separators[: shown.steps * size],
                self._palette.demonstration_end,
            ]
            self._kinds += [pattern.roles[: shown.steps * size], self._palette.is_header[:1]]
            place += shown.steps * size + 1
        episode, first, steps = segment.episode, segment.first, segment.steps
        stored = self._timesteps(segment.folder, episode, first, steps)
        size, k = pattern.timestep_tokens, len(pattern.chosen)
        places = place + size * np.arange(steps)
        self._give(pattern.observation, stored[:, pattern.given], places)
        if k > 1:
            asked = (places + size - k + 1)[:, None] + np.arange(k - 1)
            self._give(QUERIES, np.tile(pattern.queries, (steps, 1)), asked.ravel())
        self._ids.append(self._palette.separators[: steps * size])
        self._kinds.append(pattern.kinds[: steps * size])
        labels = self._folders[segment.folder].sample(episode.sample).labels
        if labels is None:
            self._labels.append(stored[:, pattern.chosen].ravel())
        else:
            start = (episode.first_step + first) * k
            self._labels.append(labels[start : start + steps * k])

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
        """All rows; `keys`, (B,) uint64, of their random ids in place of hidden actions."""
        ids = np.concatenate(self._ids).astype(np.int64)
        kinds = np.concatenate(self._kinds)
        lengths = np.array(self._lengths)
        positions = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        folder = np.repeat(np.array(self._sources, np.int16), lengths)
        is_target = kinds & _TARGET > 0
        targets = np.where(is_target, ids, IGNORE)
        if self._labels:
            targets[np.flatnonzero(kinds & _LABELLED)] = np.concatenate(self._labels)
        if self._legal:
            self._hide(ids, np.flatnonzero(kinds & _HIDDEN), keys)
        role, weight = kinds & _ROLE, is_target.astype(np.float32)
        if self._palette.losses is not None:
            weight *= self._palette.losses[folder, role]
        shape = len(keys), self._palette.window_tokens
        return Batch(
            input_ids=ids.reshape(shape),
            position_ids=positions.reshape(shape),
            targets=targets.reshape(shape),
            query=(kinds & _QUERY > 0).reshape(shape),
            ordinal=(kinds & _ORDINAL > 0).reshape(shape),
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
        )

    def _hide(self, ids: np.ndarray, where: np.ndarray, keys: np.ndarray) -> None:
        """Replace the ids at these places by random legal ones."""
        first, count = (np.concatenate(part) for part in zip(*self._legal, strict=True))
        row, place = np.divmod(where, self._palette.window_tokens)
        bits = words(keys[row], place.astype(np.uint64)) >> np.uint64(32)
        # Multiply and shift: from 32 random bits to a number below `count`.
        ids[where] = first + (bits * count >> np.uint64(32)).astype(np.int64)
