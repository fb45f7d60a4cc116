"""How the action tokens of a task are chosen, perhaps under a mask of legal actions.

Legend: k = action tokens of a timestep.
"""

from __future__ import annotations

from typing import Any

from generalist.decoding.sampling import Choice, Sampling
from generalist.errors import GeneralistError
from generalist.tokenization.layout import Layout
from generalist.tokenization.masks import token_masks


def choices_of(layout: Layout, sampling: Sampling, *, task: str, mask: Any = None) -> list[Choice]:
    """One choice for each of the k action tokens.

    mask: `info["action_mask"]`, as the action space's `sample` takes it; None: all is legal.
    Raises GeneralistError, naming `task`, where the mask has another form or allows nothing.
    """
    try:
        masks = token_masks(layout, mask)
    except GeneralistError as error:
        raise GeneralistError(f"{task}: {error}") from None
    positions = layout.positions
    ordinal = (positions.bins[positions.chosen] >= 0).tolist()
    return [
        Choice(interval=interval, ordinal=is_ordinal, mask=legal, sampling=sampling)
        for interval, is_ordinal, legal in zip(layout.legal, ordinal, masks, strict=True)
    ]
