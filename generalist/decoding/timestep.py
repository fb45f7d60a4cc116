"""What is chosen in one timestep: position by position on the device, then told slot by slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from generalist.decoding.sampling import Choice


class Chosen(NamedTuple):
    """The action tokens of one timestep, for each of N slots the k it has."""

    ids: list[list[int]]
    log_probs: list[list[float]] | None  # of each when it was chosen, if asked for


class Position(NamedTuple):
    """What was chosen at one position of the timestep, on the model's device."""

    active: list[int]  # n slots, as numbers within the call
    ids: torch.Tensor  # (n,) int64
    log_probs: torch.Tensor | None  # (n,) float32


def resolved(
    choices: Sequence[Choice], active: Sequence[int], parts: Sequence[Position]
) -> Sequence[Choice]:
    """The choices of the slots `active`, their masks as flags, after the positions before."""
    if not any(callable(choice.mask) for choice in choices):
        return choices
    slots = 1 + max(i for part in (active, *(part.active for part in parts)) for i in part)
    before = _by_slot(slots, parts, [token for part in parts for token in part.ids.tolist()])
    return [choice.after(before[i]) for choice, i in zip(choices, active, strict=True)]


def told(slots: int, parts: Sequence[Position]) -> Chosen:
    """Fetch what was chosen, position by position, and give each slot its own.

    Only here does the CPU wait for the device.
    """
    ids = _by_slot(slots, parts, torch.cat([part.ids for part in parts]).tolist())
    said = [part.log_probs for part in parts if part.log_probs is not None]
    return Chosen(ids, _by_slot(slots, parts, torch.cat(said).tolist()) if said else None)


def _by_slot(slots: int, parts: Sequence[Position], values: Sequence[Any]) -> list[list[Any]]:
    """Values that come position by position, slot by slot."""
    found: list[list[Any]] = [[] for _ in range(slots)]
    coming = iter(values)
    for part in parts:
        for i in part.active:
            found[i].append(next(coming))
    return found
