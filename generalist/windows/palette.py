"""What rows are put together from besides episodes: what each token of a timestep is, and padding.

Legend: L = window tokens, V = shown tokens of a timestep, n = timesteps that fit in a window,
k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from generalist.errors import GeneralistError
from generalist.tokenization.compact import CompactForm, signatures_of
from generalist.tokenization.layout import ROLES
from generalist.windows.folders import Folder
from generalist.windows.views import View

ROW_ROLES = (*ROLES, "header", "padding")
"""What tokens of a row are for: the roles of timesteps, those of demonstrations too, and these."""

_HEADER, _PADDING = ROW_ROLES.index("header"), ROW_ROLES.index("padding")

# A token's kind, a byte: its role in the lowest three bits, and these.
ROLE = 7
TARGET, ORDINAL = 8, 16
LABELLED = 32  # its target is not itself but the label
HIDDEN = 64  # a random legal id is shown in its place
QUERY = 128  # it is not shown: its target is predicted from its own place


class Pattern:
    """What the tokens of a segment's timesteps are, for as many timesteps as fit in a window.

    Args:
        view: what is shown of the timesteps.
        window_tokens: L.

    Attributes:
        view: as given.
        is_stored: whether timesteps are shown as they are stored.
        is_text: whether the actions are text, which is always shown as it was written.
        is_written: whether an action is a whole text.
        stored_tokens: tokens of a timestep as it is stored.
        timestep_tokens: V.
        actions_of_a_step: k.
        label_place: token of a timestep that is its first action token.
        loss: (roles,) float32, weight of the loss by role.
        roles: (n * V,) uint8.
        kinds: by (labelled + 2 * hidden), (n * V,) uint8.
        legal_first: (n * k,) int64, first legal id at each action token.
        legal_count: (n * k,) uint64, number of legal ids there.
    """

    def __init__(self, view: View, window_tokens: int) -> None:
        positions, fit = view.positions, window_tokens // view.tokens_per_timestep
        self.view, self.is_stored = view, view.is_stored
        self.is_written = view.layout.is_written
        self.is_text = view.layout.is_document or self.is_written
        self.stored_tokens = view.layout.tokens_per_timestep
        self.timestep_tokens = view.tokens_per_timestep
        self.actions_of_a_step = int(positions.chosen.sum())
        self.label_place = self.timestep_tokens - self.actions_of_a_step
        self.loss = np.zeros(len(ROW_ROLES), np.float32)  # weight by role
        self.loss[positions.role] = view.loss
        self.roles = np.tile(positions.role, fit)
        has_loss = view.loss != 0
        kinds = positions.role + has_loss * np.uint8(TARGET)
        kinds += (has_loss & (positions.bins >= 0)) * np.uint8(ORDINAL)
        self.kinds = [
            np.tile(kinds + positions.chosen * np.uint8(bits), fit)
            for bits in (0, LABELLED, HIDDEN, LABELLED | HIDDEN)
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
        value_weight: weight of a value's loss; 0 where the task has no returns.
        outcome_weights: (3 + K,) float32, weights of the losses of an outcome and of the next
            observation; None where the task has none.

    Attributes:
        task: number of the task.
        observation, action: names of their embedders.
        timestep_tokens: positions of a timestep, as `CompactForm.timestep_positions` has it.
        demonstration_tokens: positions of a timestep of a demonstration, G.
        given, chosen: (K,) and (k,) int64, which stored tokens are embedded, and which are the
            action.
        is_written: whether the k action tokens stand at the last k positions, as text that is
            written does. Else queries stand at the last k - 1.
        queries: (k - 1, 1) int64, numbers of the queries.
        first_query: position of a timestep at which they begin.
        label_place: position of a timestep whose target is its first action token.
        shows_taken: whether the last position of a timestep shows the action that was taken.
        returns: name of the embedder of returns; None where the form has none.
        first_return: id of the first bin of returns.
        has_value: whether timesteps have a value to predict.
        value_place: position of a timestep at which its value is predicted.
        outcome_weights: as given.
        loss: (roles,) float32, weight of the loss by role.
        roles: (L,) uint8, of the positions of a demonstration.
        kinds: (n * timestep_tokens,) uint8.

    Raises:
        GeneralistError: the view is not that of what is stored.
    """

    def __init__(
        self,
        task: str,
        view: View,
        form: CompactForm,
        *,
        window_tokens: int,
        value_weight: float = 0.0,
        outcome_weights: np.ndarray | None = None,
    ) -> None:
        layout = view.layout
        if not view.is_stored or set(view.loss[view.positions.chosen]) != {1.0}:
            raise GeneralistError(f"{task}: the compact form shows timesteps as they are stored.")
        self.task = form.number_of(task)
        self.observation, self.action = (each.name for each in signatures_of(layout))
        self.timestep_tokens = form.timestep_positions(layout)
        self.demonstration_tokens = form.positions
        positions = layout.positions
        self.given, self.chosen = (positions.of_role(each) for each in ("observation", "action"))
        self.is_written = layout.is_written
        self.queries = np.arange(len(self.chosen) - 1)[:, None]
        self.shows_taken = form.world is not None
        self.first_query = self.timestep_tokens - len(self.chosen) + 1
        self.first_query -= self.is_written + self.shows_taken
        self.label_place = self.first_query - 1
        self.outcome_weights, self._world = outcome_weights, form.world
        self.loss = np.zeros(len(ROW_ROLES), np.float32)
        self.loss[ROLES.index("action")] = 1
        self.loss[ROLES.index("return")] = value_weight
        self.roles = np.full(window_tokens, ROLES.index("observation"), np.uint8)
        is_ordinal = positions.bins[positions.chosen] >= 0
        kinds = ROLES.index("action") | (is_ordinal * np.uint8(ORDINAL))
        kinds |= np.uint8(TARGET | LABELLED | QUERY)
        self.returns = None if form.returns is None else form.returns.name
        self.first_return = 0 if form.returns is None else form.returns.runs[0].start
        self.has_value = form.returns is not None and value_weight > 0
        self.value_place = form.positions - 1
        # Of a text's last token, or of what was done.
        after = [ROLES.index("action")] * (self.is_written + self.shows_taken)
        before = self.roles[: self.first_query - 1].copy()
        if self.has_value:
            before[-1] = ROLES.index("return") | TARGET | ORDINAL | LABELLED | QUERY
        kinds = np.concatenate([before, kinds, after]).astype(np.uint8)
        self.kinds = np.tile(kinds, window_tokens // self.timestep_tokens)

    def outcome_ids(self, codes: np.ndarray) -> np.ndarray:
        """(n, 3) codes of outcomes to ids."""
        assert self._world is not None, "the form predicts outcomes"
        world = self._world
        over = np.where(codes[:, :1] == 1, world.is_over, world.goes_on)
        return np.concatenate([over, codes[:, 1:] + world.first], axis=1)


class Palette:
    """The pieces that rows of a sampler are put together from, besides the episodes.

    Args:
        folders: the dataset folders.
        window_tokens: L.

    Attributes:
        window_tokens: L.
        patterns: the pattern of each folder.
        padding: (L,) ids of the vocabulary's dtype.
        separators: (L,) ids of the vocabulary's dtype.
        demonstration_end: (1,) id.
        document_end: (1,) id.
        is_header: (L,) uint8 kinds.
        is_padding: (L,) uint8 kinds.
        losses: (folders, roles) float32 weights; None where they are 0 and 1 alone.
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
    return CompactPattern(
        folder.data.task,
        folder.view,
        folder.form,
        window_tokens=window_tokens,
        value_weight=folder.value_weight,
        outcome_weights=folder.outcome_weights,
    )
