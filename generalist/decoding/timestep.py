"""What is chosen in one timestep: position by position on the device, then told slot by slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from generalist.decoding.sampling import Choice


class Chosen(NamedTuple):
    """The action tokens of one timestep, for each of N slots the k it has.

    Attributes:
        ids: of each slot.
        log_probs: natural logarithm of how probable each was when it was chosen; None where that
            was not asked for.
        values: (N, R) logits of the bins of returns, on the model's device; None where they were
            not read.
    """

    ids: list[list[int]]
    log_probs: list[list[float]] | None
    values: torch.Tensor | None = None


class Position(NamedTuple):
    """What was chosen at one position of the timestep, on the model's device.

    Attributes:
        active: n slots, as numbers within the call.
        ids: (n,) int64.
        log_probs: (n,) float32; None where they were not asked for.
    """

    active: list[int]
    ids: torch.Tensor
    log_probs: torch.Tensor | None


def resolved(
    choices: Sequence[Choice], active: Sequence[int], parts: Sequence[Position]
) -> Sequence[Choice]:
    """Choices with their masks as flags.

    Args:
        choices: of the slots `active`.
        active: numbers of these slots within the call.
        parts: what was chosen at the positions before.
    """
    if not any(callable(choice.mask) for choice in choices):
        return choices
    slots = 1 + max(i for part in (active, *(part.active for part in parts)) for i in part)
    before = _by_slot(slots, parts, [token for part in parts for token in part.ids.tolist()])
    return [choice.after(before[i]) for choice, i in zip(choices, active, strict=True)]


def going_on(choices: Sequence[Sequence[Choice]], part: Position, position: int) -> list[bool]:
    """Which slots of a position choose another token behind it.

    Where a token may end the timestep, the CPU waits for the device.

    Args:
        choices: of all slots of the call, position by position.
        part: what was chosen at the position.
        position: number of the position.
    """
    ends = [choices[i][position].ends for i in part.active]
    ids = part.ids.tolist() if any(ends) else [0] * len(ends)
    return [
        len(choices[i]) > position + 1 and not (each and each[0] <= token < each[1])
        for i, each, token in zip(part.active, ends, ids, strict=True)
    ]


def told(slots: int, parts: Sequence[Position]) -> Chosen:
    """Fetch what was chosen, position by position, and give each slot its own.

    Only here does the CPU wait for the device.

    Args:
        slots: N.
        parts: what was chosen at each position.
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
