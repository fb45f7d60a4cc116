"""The arithmetic of a run, its share of the device's peak (MFU), and spikes of the loss."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch

from generalist.training.passes import ForwardPass
from generalist.training.plan import attention_flops, flops_of, parameters_of
from generalist.training.recipe import Recipe

# Dense peak in FLOP/s with bf16 inputs; the first name that fits. Other GPUs have no MFU.
BF16_PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100 80GB HBM3": 989e12, "A100": 312e12}
SPIKE_WINDOW, SPIKE_AT_LEAST, SPIKE_DEVIATIONS = 100, 20, 6.0


def peak_flops(device: torch.device, mixed_precision: str) -> float | None:
    """Peak FLOP/s of a device in the run's precision; None where it is unknown."""
    if device.type != "cuda" or mixed_precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in BF16_PEAKS.items() if part in name), None)


class FlopCounter:
    """Counts model FLOPs, forward and backward, as PaLM does (appendix B), for causal attention.

    Model FLOPs ignore what an implementation skips or computes twice. The head counts for targets
    alone, and with `loss.full_every` only for those that take the softmax over all ids.

    Args:
        recipe: the recipe of the run.
        vocabulary_size: ids of the vocabulary.
    """

    def __init__(self, recipe: Recipe, vocabulary_size: int) -> None:
        self.recipe = recipe
        parameters = parameters_of(recipe.model, vocabulary_size)
        flops = flops_of(
            recipe.model,
            parameters,
            vocabulary_size=vocabulary_size,
            window_tokens=recipe.data.window_tokens,
        )
        self.per_token, self.per_target = flops.body, flops.head / recipe.loss.full_every

    def of(self, batch: ForwardPass) -> float:
        """FLOPs of one forward pass and its backward pass."""
        attention = attention_flops(self.recipe.model, batch.attended)
        tokens, targets = batch.input_ids.numel(), len(batch.plain_targets.ids)
        return self.per_token * tokens + attention + self.per_target * targets


class SpikeDetector:
    """Detects losses far above the mean of those before them."""

    def __init__(self) -> None:
        self._before: deque[float] = deque(maxlen=SPIKE_WINDOW)

    def see(self, loss: float) -> str | None:
        """Note the loss of a step; return a description if it is a spike, else None."""
        before = np.array(self._before)
        if np.isfinite(loss):
            self._before.append(loss)
        if len(before) < SPIKE_AT_LEAST:
            return None
        mean, deviation = before.mean(), before.std()
        if np.isfinite(loss) and loss <= mean + SPIKE_DEVIATIONS * max(deviation, 1e-6):
            return None
        return f"loss {loss:.3g}, where the {len(before)} before had {mean:.3g} ± {deviation:.2g}"
