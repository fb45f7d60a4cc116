"""How the real numbers of episodes fall on codes, and which fields lose too much of them.

Legend: T = steps of an episode, K = elements of a field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from generalist.episode import Episode, tree_get
from generalist.tokenization.codec import flat
from generalist.tokenization.continuous import ContinuousCodec
from generalist.tokenization.layout import Layout
from generalist.tokenization.quantile import QuantileCodec

CLIPPED_SHARE = 0.01
"""Share of an element's values that may lie beyond its bins before that is said."""


@dataclass
class FieldUse:
    """What one field held in the steps seen so far; the arrays have shape (K,)."""

    steps: int
    low: np.ndarray  # smallest values
    high: np.ndarray
    first: np.ndarray  # smallest codes
    last: np.ndarray
    clipped: np.ndarray  # how many values lay beyond the bins

    def add(self, other: FieldUse) -> None:
        """Count the steps of another episode too."""
        self.steps += other.steps
        self.low, self.first = np.minimum(self.low, other.low), np.minimum(self.first, other.first)
        self.high, self.last = np.maximum(self.high, other.high), np.maximum(self.last, other.last)
        self.clipped = self.clipped + other.clipped


@dataclass
class CodeUse:
    """How the codes of each field of real numbers were used, by the field's name."""

    fields: dict[str, FieldUse] = field(default_factory=dict)

    @classmethod
    def of(cls, episode: Episode, tokens: np.ndarray, layout: Layout) -> CodeUse:
        """The use in one episode.

        Args:
            episode: Its values.
            tokens: (T * tokens_per_timestep,) ids that they were encoded to.
            layout: The layout of these ids.
        """
        use = cls()
        timesteps = tokens.reshape(-1, layout.tokens_per_timestep)
        for number, each in enumerate(layout.parts):
            if not isinstance(each.codec, (ContinuousCodec, QuantileCodec)) or not len(timesteps):
                continue
            tree = episode.observations if each.role == "observation" else episode.actions
            values, codes = (
                tree_get(tree, each.path),
                timesteps[:, layout.positions.of_part(number)],
            )
            x = flat(values, each.codec.shape)
            use.fields[each.name] = FieldUse(
                len(codes),
                x.min(axis=0).astype(np.float64),
                x.max(axis=0).astype(np.float64),
                codes.min(axis=0),
                codes.max(axis=0),
                each.codec.clipped(values).sum(axis=0),
            )
        return use

    def add(self, other: CodeUse) -> None:
        """Count the steps of another episode of the same layout too."""
        for name, use in other.fields.items():
            if name in self.fields:
                self.fields[name].add(use)
            else:
                self.fields[name] = use

    def losses(self) -> list[str]:
        """A sentence for each field whose codes say too little of its values."""
        return [sentence for name, use in self.fields.items() for sentence in _losses(name, use)]


def _losses(name: str, use: FieldUse) -> Iterator[str]:
    if not len(use.low):
        return
    advice = "scale it with a wrapper"
    if name.startswith("observation"):
        advice += ", or collect it with `bins: quantiles`"
    runs = f"values from {use.low.min():.6g} to {use.high.max():.6g}"
    if (use.first == use.last).all() and (use.low < use.high).any():
        yield f"{name} has one id in 100% of {use.steps} steps, though it has {runs}; {advice}."
        return
    shares = use.clipped / use.steps
    worst = int(shares.argmax())
    if shares[worst] > CLIPPED_SHARE:
        where = f"{name}[{worst}]" if len(shares) > 1 else name
        runs = f"values from {use.low[worst]:.6g} to {use.high[worst]:.6g}"
        yield (
            f"{where} is clipped in {shares[worst]:.0%} of {use.steps} steps: it has {runs}, and "
            f"its bins end before; {advice}."
        )
