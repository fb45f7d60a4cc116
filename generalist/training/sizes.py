"""One dial for the size of a model: what else must follow it.

Of this ladder 1m is measured, as the quickstart. The learning rates of the larger rungs are taken
over from it and not measured: `python -m benchmarks.ladder data/quickstart` does so.
"""

from __future__ import annotations

from dataclasses import dataclass

from generalist.errors import UsageError
from generalist.training.recipe import Recipe


@dataclass(frozen=True)
class Size:
    """A rung of the ladder: a model of the compact form, and how it is trained on two cores.

    Attributes:
        hidden_size: width of the model.
        intermediate_size: width of its feed-forward blocks.
        layers: number of blocks.
        heads: of attention.
        lr: peak learning rate of Muon.
        window_tokens: positions of a window.
        rows_per_step: windows of a step.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    lr: float
    window_tokens: int = 192
    rows_per_step: int = 10

    def overrides(self) -> list[str]:
        """The recipe keys that it sets, as KEY=VALUE."""
        return [
            f"model.hidden_size={self.hidden_size}",
            f"model.intermediate_size={self.intermediate_size}",
            f"model.layers={self.layers}",
            f"model.heads={self.heads}",
            f"optimizer.lr={self.lr}",
            f"data.window_tokens={self.window_tokens}",
            f"data.rows_per_step={self.rows_per_step}",
        ]


SIZES = {
    "1m": Size(128, 512, 4, 2, lr=0.003),
    "3m": Size(192, 768, 5, 3, lr=0.003),
    "10m": Size(320, 1280, 6, 5, lr=0.003),
}
"""By the parameters of the body, the embedding table and the embedders apart."""


def overrides_of(size: str | None, minutes: float | None = None) -> list[str]:
    """The recipe keys of a size and of a time, as KEY=VALUE.

    Args:
        size: a name in `SIZES`; None leaves the recipe's.
        minutes: wall-clock budget of training; None leaves the recipe's.

    Raises:
        UsageError: there is no such size.
    """
    if size is not None and size not in SIZES:
        raise UsageError(
            f"There is no size {size!r}; there are {', '.join(SIZES)}. A recipe has all keys."
        )
    found = [] if size is None else SIZES[size].overrides()
    return found if minutes is None else [*found, f"schedule.minutes={minutes}"]


def sized(recipe: Recipe, size: str | None) -> Recipe:
    """The recipe, if the ladder was measured for recipes like it.

    Raises:
        UsageError: it is of another form or optimizer, or continues from another model.
    """
    if size is None:
        return recipe
    fits = recipe.model.form == "compact" and recipe.optimizer.name == "muon"
    if not fits or recipe.model.init_from is not None or recipe.reinforcement is not None:
        raise UsageError(
            f"--size {size} was measured for demonstrations in the compact form, by Muon, from new "
            "weights, as in the recipe quickstart. Set the keys of this recipe one by one."
        )
    return recipe
