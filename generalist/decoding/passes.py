"""The shortest way through a model on its device."""

from __future__ import annotations

from typing import Any

from generalist.decoding.graphs import GraphedPass, can_be_graphed
from generalist.decoding.lean import LeanPass
from generalist.decoding.packed import is_known
from generalist.decoding.plain import PlainPass


def forward_of(
    model: Any, rows: int, capacity: int, plain: bool
) -> PlainPass | LeanPass | GraphedPass:
    """The shortest way that is known through a model on its device.

    Args:
        model: a Hugging Face causal LM.
        rows: rows of its cache.
        capacity: most tokens of a row.
        plain: go through the model's own code also where a shorter way is known.
    """
    if plain or not is_known(model):
        return PlainPass(model, rows, capacity)
    body = model.base_model
    if body.device.type == "cpu":
        return LeanPass(model, rows, capacity)
    if can_be_graphed(body):
        return GraphedPass(model, rows, capacity)
    return PlainPass(model, rows, capacity)
