"""How the decoder chooses the action tokens of a task, under a mask of legal actions if any.

Legend: k = action tokens of a timestep.
"""

from __future__ import annotations

from typing import Any

from generalist.decoding.sampling import Choice, Sampling
from generalist.errors import GeneralistError
from generalist.tokenization.layout import Layout
from generalist.tokenization.masks import token_masks


def choices_of(layout: Layout, sampling: Sampling, *, task: str, mask: Any = None) -> list[Choice]:
    """The choices of the k action tokens of a timestep.

    Args:
        layout: the task's layout.
        sampling: temperature and top-p.
        task: name of the task, for errors.
        mask: `info["action_mask"]`, as the action space's `sample` takes it; None: all actions
            are legal.

    Returns:
        k choices.

    Raises:
        GeneralistError: the mask has another form, or allows no action.
    """
    try:
        masks = token_masks(layout, mask)
    except GeneralistError as error:
        raise GeneralistError(f"{task}: {error}") from None
    positions = layout.positions
    ordinal = (positions.bins[positions.chosen] >= 0).tolist()
    ends = [each for part in layout.parts_of("action") for each in [part.ends] * part.tokens]
    return [
        Choice(interval=interval, ordinal=is_ordinal, mask=legal, sampling=sampling, ends=last)
        for interval, is_ordinal, legal, last in zip(
            layout.legal, ordinal, masks, ends, strict=True
        )
    ]
