"""Views: what a model is shown of the timesteps that are stored.

Shards hold `observation, separator, action` and, beside the tokens, rewards and labels. They never
change for a new way of learning. A view weaves a timestep as it is shown from both when windows are
built, for example `reward of the step before, observation, separator, return, action`.

Legend: T = steps of an episode, n = steps of a segment, S = stored and V = shown tokens of a
timestep, K = tokens of a part, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from generalist.errors import GeneralistError
from generalist.tokenization.layout import ROLES, Layout, Part, Positions, Role

ACTIONS_ALONE: Mapping[Role, float] = {"action": 1.0}


@dataclass(frozen=True)
class Woven:
    """A part that is not stored but made from the rewards of an episode.

    Attributes:
        part: the part.
        make: (T,) float32 raw rewards to (T, K) ids, which `part.decode` turns back into values.
    """

    part: Part
    make: Callable[[np.ndarray], np.ndarray]


class View:
    """The parts of a timestep as it is shown, and which of them carry a loss.

    Args:
        layout: of what is stored.
        parts: what is shown, in order: parts of the layout, and parts woven in; None for the
            layout's. The actions come last, in their stored order, so that all that is chosen
            stands together.
        losses: weight of the loss of each role, not negative; a role that is not named has none.

    Attributes:
        layout: as given.
        parts: what is shown, in order.
        positions: of the V shown tokens.
        loss: (V,) float32, weight of each token's loss.
        is_stored: whether timesteps are shown as they are stored.

    Raises:
        GeneralistError: a part is not the layout's, the actions do not come last or have no loss,
            or a weight is negative.
    """

    def __init__(
        self,
        layout: Layout,
        parts: Sequence[Part | Woven] | None = None,
        losses: Mapping[Role, float] = ACTIONS_ALONE,
    ) -> None:
        self.layout = layout
        self.parts = tuple(layout.parts if parts is None else parts)
        self._woven = {number: p for number, p in enumerate(self.parts) if isinstance(p, Woven)}
        shown = [each.part if isinstance(each, Woven) else each for each in self.parts]
        self.positions = Positions.of(shown)
        by_role = np.array([losses.get(role, 0.0) for role in ROLES], np.float32)
        self.loss = by_role[self.positions.role]
        self._stored = self._stored_columns()
        # As it is stored: nothing is woven, and windows are slices of the mapped file.
        self.is_stored = np.array_equal(self._stored, np.arange(layout.tokens_per_timestep))
        self._check()

    def _stored_columns(self) -> np.ndarray:
        """(V,) int64, which stored token each shown one is; -1 where it is woven in."""
        columns = []
        for part in self.parts:
            if isinstance(part, Woven):
                columns.append(np.full(part.part.tokens, -1))
            elif part in self.layout.parts:
                number = self.layout.parts.index(part)
                columns.append(self.layout.positions.of_part(number))
            else:
                raise GeneralistError(f"{part.name} is not a part of the layout that is stored.")
        return np.concatenate(columns)

    def _check(self) -> None:
        chosen, stored = self.positions.chosen, self.layout.positions
        last = self._stored[len(chosen) - int(chosen.sum()) :]
        if not np.array_equal(last, stored.of_role("action")):
            raise GeneralistError(
                "A view shows all actions of its layout, once, in their order and after all else."
            )
        if (self.loss < 0).any():
            raise GeneralistError(f"Weights of losses must not be negative: {self.loss.tolist()}.")
        if not self.loss[chosen].all():
            raise GeneralistError("A view without a loss on its actions cannot be trained.")

    @property
    def tokens_per_timestep(self) -> int:
        """V."""
        return len(self.positions)

    def show(self, stored: np.ndarray, rewards: np.ndarray, first: int) -> np.ndarray:
        """Timesteps as they are shown.

        Args:
            stored: (n * S,) ids of n timesteps.
            rewards: (T,) float32 raw rewards of their whole episode.
            first: which of its steps is the first of them.

        Returns:
            (n * V,) ids; `stored` itself where nothing is woven in.
        """
        if self.is_stored:
            return stored
        timesteps = stored.reshape(-1, self.layout.tokens_per_timestep)
        shown = timesteps[:, self._stored]  # of woven parts any column, which is then replaced
        for number, woven in self._woven.items():
            made = woven.make(rewards)[first : first + len(timesteps)]
            shown[:, self.positions.of_part(number)] = made
        return shown.ravel()

    def part_of(self, shown: np.ndarray, number: int) -> np.ndarray:
        """(n, K) ids of part `number` within (n * V,) shown ids."""
        return shown.reshape(-1, len(self.positions))[:, self.positions.of_part(number)]

    def unpack(self, shown: np.ndarray) -> np.ndarray:
        """Inverse of `show`.

        Args:
            shown: (n * V,) ids.

        Returns:
            (n * S,) ids.

        Raises:
            GeneralistError: a part that is stored is not shown; it is named.
        """
        place = np.full(self.layout.tokens_per_timestep, -1)
        is_stored = self._stored >= 0
        place[self._stored[is_stored]] = np.flatnonzero(is_stored)
        if (place < 0).any():
            part = self.layout.parts[int(self.layout.positions.part[int(place.argmin())])]
            raise GeneralistError(f"{part.name} is stored but not shown, so it cannot be unpacked.")
        return shown.reshape(-1, len(self.positions))[:, place].ravel()
