"""Which ids are legal in many timesteps of a task, where its environment masks its actions.

What acting obeyed is kept with the unroll, so that the loss sees the very same distribution.

Shapes: n = timesteps, k = action tokens of a timestep, W = legal ids of all k of them together,
without any mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from generalist.tokenization.digits import DigitsCodec
from generalist.tokenization.layout import Layout
from generalist.tokenization.masks import token_masks


class _Later(NamedTuple):
    """Flags of a digit, which depend on the digits before it."""

    order: int
    row: int
    place: int
    flags_after: Callable[[Sequence[int]], np.ndarray]


@dataclass
class Legal:
    """Legal ids of n timesteps.

    Attributes:
        flags: (n, W) bool, action token by action token.
        bounds: (k + 1,) int64, where in W each token's flags begin, and their end.
        later: what `flags` lack until earlier digits are chosen.
    """

    flags: np.ndarray
    bounds: np.ndarray
    later: list[_Later]

    @classmethod
    def of(cls, layout: Layout, masks: Sequence[Any]) -> Legal:
        """The legal ids of timesteps with these masks, in the form that `Space.sample` takes.

        Args:
            layout: of the task.
            masks: of each timestep; None where everything is legal.
        """
        bounds = bounds_of(layout)
        flags = np.ones((len(masks), bounds[-1]), bool)
        orders, later = orders_of(layout), []
        for row, mask in enumerate(masks):
            for place, each in enumerate(token_masks(layout, mask)):
                if callable(each):
                    later.append(_Later(orders[place], row, place, each))
                elif each is not None:
                    flags[row, bounds[place] : bounds[place + 1]] = each
        return cls(flags, bounds, later)

    def settle(self, order: int, ids: np.ndarray) -> None:
        """Fill in the digits of an order, now that those before are chosen.

        Args:
            order: of the digits, from 1 on.
            ids: (n, at least k) int64 ids chosen so far.
        """
        for each in self.later:
            if each.order == order:
                before = ids[each.row, : each.place].tolist()
                part = slice(self.bounds[each.place], self.bounds[each.place + 1])
                self.flags[each.row, part] = each.flags_after(before)


def bounds_of(layout: Layout) -> np.ndarray:
    """(k + 1,) int64, where in W the flags of each action token begin, and their end."""
    return np.cumsum([0, *(stop - start for start, stop in layout.legal)])


def orders_of(layout: Layout) -> list[int]:
    """For each action token, how many digits of the same integer come before it."""
    found: list[int] = []
    for part in layout.parts_of("action"):
        if isinstance(part.codec, DigitsCodec):
            found += [digit for count in part.codec.digits for digit in range(count)]
        else:
            found += [0] * part.tokens
    return found
