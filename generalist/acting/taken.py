"""What was done: an action that somebody put in the place of the policy's own is shown instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist.acting.forms import Compact
from generalist.decoding.decoder import Decoder
from generalist.episode import tree_map

if TYPE_CHECKING:
    from generalist.acting.agent import Agent


class TakenActions:
    """Corrects what the running episodes of an agent are shown of their last actions.

    Only a form that shows later timesteps what was done has anything to correct.

    Args:
        agent: the agent.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._seen: dict[int, np.ndarray] = {}  # by slot, (K,) ids of what was observed last

    def see(self, slots: Sequence[int], seen: np.ndarray) -> None:
        """Take note of what these slots observed, (N, K) ids, when their actions were chosen."""
        if isinstance(self._agent.form, Compact) and self._agent.form.shows_taken:
            self._seen.update(zip(slots, seen, strict=True))

    def correct(
        self, decoder: Decoder, slots: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """Before the next timestep, show `executed_action` of each info where it has one."""
        form, agent = self._agent.form, self._agent
        for slot, info in zip(slots, infos, strict=True):
            executed = info.get("executed_action")
            if executed is None or slot not in self._seen:
                continue
            assert isinstance(form, Compact), "no other form remembers what was observed"
            actions = tree_map(lambda leaf: np.asarray(leaf)[None], executed)
            ids = agent.layout.encode("action", actions, agent.processor.toolbox, task=agent.task)
            decoder.retake(slot, form.taken(self._seen[slot][None], ids)[0])

    def end(self, slots: Sequence[int]) -> None:
        """Forget what ran in these slots."""
        for slot in slots:
            self._seen.pop(slot, None)
