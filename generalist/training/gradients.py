"""Gradients of a step: its rows in forward passes of a few, one after the other or side by side.

On a CPU one process a core, each with its own rows and no threads inside its matrix products, is
nearly twice as fast for a small model as all cores on one product at a time: the products are
small, and everything between them is spread as well. Threads of one process would wait for each
other's Python. The result does not depend on timing, because each process sums its own rows in
order and the sums are added in order.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import Connection
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, multiprocessing, nn

from generalist.errors import GeneralistError
from generalist.processes import GRACE_SECONDS, deaf_to_ctrl_c
from generalist.training.passes import Pass

Losses = list[tuple[Pass, Tensor]]  # each with its (M,) losses, in order


class SequentialGradients:
    """Forward passes one after the other, through accelerate: GPUs, several processes, bf16."""

    cores = 1

    def __init__(self, objective: nn.Module, accelerator: Accelerator) -> None:
        self.objective, self.accelerator = objective, accelerator

    def close(self) -> None:
        """Nothing was started."""

    def accumulate(self, passes: Sequence[Pass], scale: float) -> tuple[Tensor, Losses]:
        """Add the gradient of scale times the weighted sum of losses to `.grad`.

        Returns the sum, and each forward pass with its losses. Ranks average their gradients.
        """

        def backward(loss: Tensor, last: bool) -> None:
            self.accelerator.backward(loss)

        def together(last: bool) -> AbstractContextManager[Any]:
            return nullcontext() if last else self.accelerator.no_sync(self.objective)

        return backward_sum(
            self.objective,
            passes,
            scale,
            device=self.accelerator.device,
            backward=backward,
            around=together,
        )


def backward_sum(
    objective: nn.Module,
    passes: Sequence[Pass],
    scale: float,
    *,
    device: torch.device,
    backward: Callable[[Tensor, bool], None],
    around: Callable[[bool], AbstractContextManager[Any]] = lambda last: nullcontext(),
) -> tuple[Tensor, Losses]:
    """Forward and backward of one pass after the other, as ranks that reduce gradients need it.

    Args:
        objective: gives the (M,) losses of a forward pass.
        passes: at least one.
        scale: factor on the weighted sum of losses.
        device: where the objective is.
        backward: called with a pass's loss and whether it is the last.
        around: what a pass is computed within, by whether it is the last.

    Returns the sum, and each forward pass with its losses.
    """
    total, outcomes = torch.zeros((), device=device), []
    for number, each in enumerate(passes):
        each = each.to(device)
        last = number == len(passes) - 1
        with around(last):
            losses = objective(each)
            loss = weighted_sum(losses, each) * scale
            backward(loss, last)
        total += loss.detach()
        outcomes.append((each, losses.detach()))
    return total, outcomes


def weighted_sum(losses: Tensor, batch: Pass) -> Tensor:
    """Sum of weighted losses, (); one that is not finite makes every gradient NaN.

    So whoever looks at the gradients before a step needs not look at the loss too.
    """
    loss = (losses * batch.weight).sum()
    return loss * (loss.detach() * 0 + 1)


class ParallelGradients:
    """Forward passes of one training process side by side on the cores of a CPU.

    This process computes a share itself. Each of the helpers, started when there is work for one,
    reads the weights where they lie, in shared memory, and leaves its gradients there.
    """

    def __init__(self, objective: nn.Module, cores: int) -> None:
        self.objective, self.cores = objective, cores
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        self.helpers: list[_Helper] = []
        use_one_core()

    def accumulate(self, passes: Sequence[Pass], scale: float) -> tuple[Tensor, Losses]:
        """As in SequentialGradients; pass i belongs to core i modulo the number of cores."""
        shares = [
            [passes[i] for i in range(core, len(passes), self.cores)] for core in range(self.cores)
        ]
        mine, *others = [share for share in shares if share]
        self._start(len(others))
        for helper, share in zip(self.helpers, others, strict=False):
            helper.ask(share, scale)
        results = [share_gradients(self.objective, self.parameters, mine, scale)]
        results += [helper.answer() for helper, _ in zip(self.helpers, others, strict=False)]
        total = torch.zeros(())
        for share_total, gradients, _ in results:
            total += share_total
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                if gradient is None:
                    continue
                if parameter.grad is None:
                    parameter.grad = gradient
                else:
                    parameter.grad += gradient
        losses = [results[i % self.cores][2][i // self.cores] for i in range(len(passes))]
        return total, list(zip(passes, losses, strict=True))

    def close(self) -> None:
        """End the helpers."""
        for helper in self.helpers:
            helper.close()
        self.helpers = []

    def _start(self, helpers: int) -> None:
        """Have at least so many helpers."""
        if helpers <= len(self.helpers):
            return
        size = sum(p.numel() * p.element_size() for p in self.parameters)
        _check_shared_memory(size * (helpers + 1))
        self.objective.share_memory()
        while len(self.helpers) < helpers:
            self.helpers.append(_Helper(self.objective, self.parameters))


class _Helper:
    """Another process that computes gradients of the same weights."""

    def __init__(self, objective: nn.Module, parameters: Sequence[Tensor]) -> None:
        self.gradients = [torch.zeros_like(p).share_memory_() for p in parameters]
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_help, args=(objective, self.gradients, theirs), daemon=True
        )
        with deaf_to_ctrl_c():  # also before it can say so itself
            self.process.start()
        theirs.close()  # so that its end is noticed here

    def ask(self, passes: Sequence[Pass], scale: float) -> None:
        """Begin a share of a step."""
        try:
            # Tensors as arrays: those go through a pipe as bytes, tensors as files to be shared.
            self.connection.send(([each.map(Tensor.numpy) for each in passes], scale))
        except OSError as error:
            raise self._ended() from error

    def answer(self) -> tuple[Tensor, list[Tensor | None], list[Tensor]]:
        """Wait for what `share_gradients` returned there."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if isinstance(answer, Exception):
            raise answer
        total, has_gradient, losses = answer
        gradients = [
            gradient if has else None
            for gradient, has in zip(self.gradients, has_gradient, strict=True)
        ]
        return torch.tensor(total), gradients, [torch.from_numpy(loss) for loss in losses]

    def close(self) -> None:
        """End the process, which notices that nobody will ask any more."""
        self.connection.close()
        self.process.join(timeout=GRACE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _ended(self) -> GeneralistError:
        self.process.join(timeout=5)
        return GeneralistError(
            f"A process that computes gradients ended with exit code {self.process.exitcode}; "
            "perhaps memory ran out. The same command continues from the last checkpoint; "
            "cores=1 trains without such processes."
        )


def _help(objective: nn.Module, buffers: Sequence[Tensor], connection: Connection) -> None:
    """What a helper does until the process that trains closes its end or is gone."""
    try:
        _serve(objective, buffers, connection)
    except (EOFError, OSError):
        os._exit(0)  # nothing to be saved, and a second less than taking torch apart


def _serve(objective: nn.Module, buffers: Sequence[Tensor], connection: Connection) -> None:
    """Answer shares until a pipe breaks."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the process that trains decides when to end
    use_one_core()
    parameters = [p for p in objective.parameters() if p.requires_grad]
    while True:
        arrays, scale = connection.recv()
        try:
            passes = [each.map(torch.from_numpy) for each in arrays]
            total, gradients, losses = share_gradients(objective, parameters, passes, scale)
            for buffer, gradient in zip(buffers, gradients, strict=True):
                if gradient is not None:
                    buffer.copy_(gradient)
            answer: Any = (
                total.item(),
                [gradient is not None for gradient in gradients],
                [loss.numpy() for loss in losses],
            )
        except Exception as error:  # told to the process that trains
            answer = error
        connection.send(answer)


def share_gradients(
    objective: nn.Module, parameters: Sequence[Tensor], passes: Sequence[Pass], scale: float
) -> tuple[Tensor, list[Tensor | None], list[Tensor]]:
    """One core's part of a step: its loss, its gradients, the losses of its forward passes."""
    total, outcomes = torch.zeros(()), []
    sums: list[Tensor | None] = [None] * len(parameters)
    for each in passes:
        losses = objective(each)
        loss = weighted_sum(losses, each) * scale
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for i, gradient in enumerate(gradients):
            before = sums[i]
            if gradient is not None:
                sums[i] = gradient if before is None else before.add_(gradient)
        total += loss.detach()
        outcomes.append(losses.detach())
    return total, sums, outcomes


def use_one_core() -> None:
    """Settings that torch keeps for each thread."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _check_shared_memory(wanted: int) -> None:
    """Raise GeneralistError where it does not suffice: using it would end in a bus error."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return  # no such place here: shared memory is bounded otherwise
    if wanted > free:
        raise GeneralistError(
            f"Training on several cores needs {wanted / 1e6:.0f} MB of shared memory, and "
            f"/dev/shm has {free / 1e6:.0f} MB; give it more (docker run --shm-size), "
            "or train with cores=1."
        )
