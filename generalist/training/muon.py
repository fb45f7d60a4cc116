"""Muon with the matrices of one shape multiplied together.

A small model has dozens of small matrices. One after the other they were an eighth of a step on a
CPU; on a GPU each costs some thirty kernels that Python launches.

Legend: n = matrices of one shape, r and c = its sides, r <= c.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_SIZE_OF_ADAMW = 0.2  # root mean square of an update (Liu et al. 2025, section 2.2)


class BatchedMuon(torch.optim.Muon):
    """`torch.optim.Muon` with updates of AdamW's size; equal to it but for rounding.

    Momentum is orthogonalised by Newton-Schulz iterations (Jordan et al. 2024, "Muon: An optimizer
    for hidden layers in neural networks"), in bfloat16.

    Args:
        params: matrices.
        lr: learning rate.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(self, params: list[Tensor], *, lr: float, weight_decay: float) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """Update all matrices that have a gradient; there is no closure."""
        assert closure is None
        for group in self.param_groups:
            params: list[Tensor] = []
            grads: list[Tensor] = []
            momenta: list[Tensor] = []
            self._init_group(group, params, grads, momenta)
            if not params:
                continue
            torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
            updates = torch._foreach_lerp(grads, momenta, group["momentum"])  # Nesterov's
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            for places in _by_shape(params):
                steps = torch.stack([updates[i] for i in places])
                steps = _orthogonal(steps, group["ns_coefficients"], group["ns_steps"])
                size = _SIZE_OF_ADAMW * math.sqrt(max(steps.shape[1:]))
                mine = [params[i] for i in places]
                torch._foreach_add_(
                    mine, steps.to(mine[0].dtype).unbind(), alpha=-group["lr"] * size
                )


def _by_shape(matrices: list[Tensor]) -> list[list[int]]:
    """Places of the matrices of each shape, in the order of its first."""
    found: dict[torch.Size, list[int]] = {}
    for place, matrix in enumerate(matrices):
        found.setdefault(matrix.shape, []).append(place)
    return list(found.values())


def _orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """(n, ., .) of any scale to bfloat16 with singular values near one, the same vectors."""
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()  # (n, r, c)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT  # (n, r, r)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
