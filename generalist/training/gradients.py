"""Gradients of a step: its rows in forward passes of a few, one after the other or in threads.

On a CPU one thread a core, each with its own rows and no threads inside its matrix products, is
nearly twice as fast for a small model as all cores on one product at a time: the products are
small, and everything between them is spread as well. The result does not depend on timing, because
each thread sums its own rows in order and the sums are added in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

Part = dict[str, Any]  # one forward pass: what generalist.training.data.to_tensors returns
Losses = list[tuple[Part, Tensor]]  # each part with its (M,) losses, in order


class SequentialGradients:
    """Forward passes one after the other, through accelerate: GPUs, several processes, bf16."""

    threads = 1

    def __init__(self, objective: nn.Module, accelerator: Accelerator) -> None:
        self.objective, self.accelerator = objective, accelerator

    def accumulate(self, parts: Sequence[Part], scale: float) -> tuple[Tensor, Losses]:
        """Add the gradient of scale times the weighted sum of losses to `.grad`.

        Returns the sum, and each part with its losses. Ranks average their gradients.
        """
        device = self.accelerator.device
        total, outcomes = torch.zeros((), device=device), []
        for number, part in enumerate(parts):
            part = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in part.items()}
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.objective):
                losses = self.objective(part)
                loss = (losses * part["target_weight"]).sum() * scale
                self.accelerator.backward(loss)
            total += loss.detach()
            outcomes.append((part, losses.detach()))
        return total, outcomes


class ThreadedGradients:
    """Forward passes in several threads of one process, on a CPU."""

    def __init__(self, objective: nn.Module, threads: int) -> None:
        self.objective, self.threads = objective, threads
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        self.pool = ThreadPoolExecutor(threads, initializer=_one_core)
        _one_core()

    def accumulate(self, parts: Sequence[Part], scale: float) -> tuple[Tensor, Losses]:
        """As in SequentialGradients; part i belongs to thread i modulo the number of threads."""
        shares = [list(range(i, len(parts), self.threads)) for i in range(self.threads)]
        futures = [
            self.pool.submit(self._share, [parts[i] for i in share], scale)
            for share in shares
            if share
        ]
        total = torch.zeros(())
        losses: dict[int, Tensor] = {}
        for share, future in zip(shares, futures, strict=False):
            share_total, gradients, share_losses = future.result()
            total += share_total
            losses |= dict(zip(share, share_losses, strict=True))
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                if gradient is None:
                    continue
                if parameter.grad is None:
                    parameter.grad = gradient
                else:
                    parameter.grad += gradient
        return total, [(parts[i], losses[i]) for i in range(len(parts))]

    def _share(
        self, parts: Sequence[Part], scale: float
    ) -> tuple[Tensor, list[Tensor | None], list[Tensor]]:
        """One thread's part of a step: its loss, its gradients, the losses of its parts."""
        total, outcomes = torch.zeros(()), []
        sums: list[Tensor | None] = [None] * len(self.parameters)
        for part in parts:
            losses = self.objective(part)
            loss = (losses * part["target_weight"]).sum() * scale
            # Not backward(), by which the threads would add to the same .grad in any order.
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            for i, gradient in enumerate(gradients):
                before = sums[i]
                if gradient is not None:
                    sums[i] = gradient if before is None else before.add_(gradient)
            total += loss.detach()
            outcomes.append(losses.detach())
        return total, sums, outcomes


def _one_core() -> None:
    """Settings that torch keeps for each thread."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
