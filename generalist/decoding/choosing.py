"""From the states of many slots to the ids that are chosen in them.

Legend: N = slots, E = hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from generalist.decoding.sampling import Choice, Interval, Sampling, choose, masked
from generalist.decoding.slots import Slot


class Chooser:
    """Chooses one id for each slot, in as few operations as there are kinds of choices.

    Args:
        head: the model's output embedding.
        on_logits: as `Decoder` has it.
    """

    def __init__(self, head: Any, on_logits: Callable[[torch.Tensor], None] | None) -> None:
        self._head, self._on_logits = head, on_logits

    def __call__(
        self,
        states: Sequence[Slot],
        hidden: torch.Tensor,
        choices: Sequence[Choice],
        log_probs: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(N,) int64 ids and, if asked for, their (N,) float32 log-probabilities, on the device."""
        if choices.count(choices[0]) == len(choices):  # the very same, as in one task without masks
            return self._alike(states, hidden, choices, log_probs)
        groups: dict[tuple[Interval, bool, Sampling], list[int]] = {}
        for i, choice in enumerate(choices):
            groups.setdefault(choice.key, []).append(i)
        if len(groups) == 1:
            return self._alike(states, hidden, choices, log_probs)
        ids = torch.empty(len(hidden), dtype=torch.int64, device=hidden.device)
        probable = torch.empty(len(hidden), device=hidden.device) if log_probs else None
        for members in groups.values():
            ids[members], said = self._alike(
                [states[i] for i in members],
                hidden[members],
                [choices[i] for i in members],
                log_probs,
            )
            if probable is not None:
                probable[members] = said
        return ids, probable

    def _alike(
        self,
        states: Sequence[Slot],
        hidden: torch.Tensor,
        choices: Sequence[Choice],
        log_probs: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As calling it, where all choices are the same but for their masks."""
        interval, ordinal, sampling = choices[0].key
        logits = self.logits(hidden, interval)
        masks = [choice.flags for choice in choices]
        if any(mask is not None for mask in masks):
            logits = masked(logits, masks)
        if self._on_logits is not None:
            self._on_logits(logits)
        uniform = None
        if sampling.temperature > 0:
            uniform = torch.tensor([state.uniform() for state in states])
        chosen, said = choose(
            logits, sampling, ordinal=ordinal, uniform=uniform, log_probs=log_probs
        )
        return chosen + interval[0], said

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor, interval: Interval) -> torch.Tensor:
        """(N, E) states to (N, stop - start) logits of the ids in [start, stop) alone."""
        legal = slice(*interval)
        bias = getattr(self._head, "bias", None)
        return functional.linear(
            hidden, self._head.weight[legal], None if bias is None else bias[legal]
        )
