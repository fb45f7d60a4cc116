"""How much arithmetic a run does, and which share of the device's that is (MFU)."""

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
    """FLOP/s that a device can do at most in the run's arithmetic; None where that is not known."""
    if device.type != "cuda" or mixed_precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in BF16_PEAKS.items() if part in name), None)


class FlopCounter:
    """Model FLOPs of forward passes and their way back, as in PaLM (appendix B), causally.

    What is skipped or computed twice does not change them. The head counts for targets alone, and
    with `loss.full_every` only for those that take the softmax over all ids.
    """

    def __init__(self, recipe: Recipe, vocabulary_size: int) -> None:
        self.recipe = recipe
        parameters = parameters_of(recipe.model, vocabulary_size)
        flops = flops_of(recipe.model, parameters, vocabulary_size, recipe.data.window_tokens)
        self.per_token, self.per_target = flops.body, flops.head / recipe.loss.full_every

    def of(self, batch: ForwardPass) -> float:
        """FLOPs of one forward pass and its way back."""
        attention = attention_flops(self.recipe.model, batch.attended)
        tokens, targets = batch.input_ids.numel(), len(batch.targets.ids)
        return self.per_token * tokens + attention + self.per_target * targets


class SpikeDetector:
    """Tells a loss that stands out from those before it."""

    def __init__(self) -> None:
        self._before: deque[float] = deque(maxlen=SPIKE_WINDOW)

    def see(self, loss: float) -> str | None:
        """Note a step's loss; says how far it stands out, if it does."""
        before = np.array(self._before)
        if np.isfinite(loss):
            self._before.append(loss)
        if len(before) < SPIKE_AT_LEAST:
            return None
        mean, deviation = before.mean(), before.std()
        if np.isfinite(loss) and loss <= mean + SPIKE_DEVIATIONS * max(deviation, 1e-6):
            return None
        return f"loss {loss:.3g}, where the {len(before)} before had {mean:.3g} ± {deviation:.2g}"
