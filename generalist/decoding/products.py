"""Weights that a few tokens at a time are multiplied by, stored as that is fastest.

A matrix in bfloat16 on a CPU is stored in the blocks that oneDNN's kernels read (AMX, or AVX-512
with bfloat16). `x @ weight` would bring it into them anew at every call, which for one token takes
longer than the product: in blocks a timestep of 79M parameters takes 0.7 of the time
(docs/log.md, "Acting and training").

Legend: P = tokens.
"""

from __future__ import annotations

import functools

import torch

_USUAL_TOKENS = 32  # what oneDNN chooses the blocks for; they serve any number


class Dense:
    """A matrix as it is.

    Args:
        weight: (in, out).
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(P, in) to (P, out)."""
        return states @ self.weight

    def added(self, residual: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """The sum of `residual` (P, out) and the product of `states` (P, in)."""
        return torch.addmm(residual, states, self.weight)

    def add_to(self, residual: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """As `added`, written over `residual`."""
        return residual.addmm_(states, self.weight)


class Blocked:
    """A matrix in oneDNN's blocks.

    Args:
        weight: (in, out) bfloat16.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        rows = weight.t().contiguous()
        self._blocks = torch.ops.mkldnn._reorder_linear_weight(rows, _USUAL_TOKENS)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """As `Dense`."""
        return torch.ops.mkldnn._linear_pointwise(states, self._blocks, None, "none", [], "")

    def added(self, residual: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """As `Dense`."""
        return residual + self(states)

    def add_to(self, residual: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """As `Dense`."""
        return residual.add_(self(states))


Product = Dense | Blocked


def product(weight: torch.Tensor) -> Product:
    """A matrix (in, out) as the faster of the two on its device."""
    half = weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
    return Blocked(weight) if half and _has_blocks() else Dense(weight)


@functools.cache
def _has_blocks() -> bool:
    """Whether oneDNN is there with kernels for bfloat16; PyTorch promises none of the names."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except AttributeError:
        return False
