"""What was done: an action that somebody put in the place of the policy's own is shown instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from generalist.acting.forms import Compact, Form
from generalist.decoding.decoder import Decoder
from generalist.episode import tree_map
from generalist.tokenization.codec import Toolbox
from generalist.tokenization.layout import Layout


class TakenActions:
    """Corrects what running episodes of a task are shown of their last actions.

    Only a form that shows later timesteps what was done has anything to correct.

    Args:
        form: how timesteps are shown.
        layout: of the task.
        toolbox: encodes its actions.
    """

    def __init__(self, form: Form, layout: Layout, toolbox: Toolbox) -> None:
        self._form = form if isinstance(form, Compact) and form.shows_taken else None
        self._layout, self._toolbox = layout, toolbox
        self._seen: dict[int, np.ndarray] = {}  # by slot, (K,) ids of what was observed last

    def see(self, slots: Sequence[int], seen: np.ndarray) -> None:
        """Take note of what these slots observed, (N, K) ids, when their actions were chosen."""
        if self._form is not None:
            self._seen.update(zip(slots, seen, strict=True))

    def correct(
        self, decoder: Decoder, slots: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """Before the next timestep, show `executed_action` of each info where it has one."""
        if self._form is None:
            return
        for slot, info in zip(slots, infos, strict=True):
            executed = info.get("executed_action")
            if executed is None or slot not in self._seen:
                continue
            actions = tree_map(lambda leaf: np.asarray(leaf)[None], executed)
            ids = self._layout.encode("action", actions, self._toolbox)
            decoder.retake(slot, self._form.taken(self._seen[slot][None], ids)[0])

    def end(self, slots: Sequence[int]) -> None:
        """Forget what ran in these slots."""
        for slot in slots:
            self._seen.pop(slot, None)
