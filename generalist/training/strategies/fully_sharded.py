"""FSDP2: torch's `fully_shard` shards weights, gradients and moments over the processes.

This module applies it without accelerate, whose FSDP2 does not run on CPUs, where tests compare it
with the other strategies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from generalist.errors import GeneralistError
from generalist.training.gradients import Losses, backward_sum
from generalist.training.objective import TokenObjective
from generalist.training.optimizer import build_optimizers
from generalist.training.passes import Pass
from generalist.training.recipe import Recipe
from generalist.training.strategies.strategy import Tensors, check_names, require_adamw


class FullySharded:
    """The strategy (see generalist.training.strategies.strategy) that uses `fully_shard`.

    Args:
        objective: the objective with a whole model; it is sharded in place.
        recipe: the recipe of the run.
        accelerator: its accelerator.

    Raises:
        GeneralistError: the optimizer needs whole matrices.
    """

    model: nn.Module
    objective: nn.Module  # sharded
    accelerator: Accelerator
    max_norm: float
    optimizers: list[torch.optim.Optimizer]
    cores = 1

    def __init__(self, objective: TokenObjective, recipe: Recipe, accelerator: Accelerator) -> None:
        require_adamw(recipe, "FSDP2")
        self.accelerator, self.model = accelerator, objective.model
        self.max_norm = recipe.optimizer.max_grad_norm
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        half = accelerator.mixed_precision == "bf16"
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32
        )
        for block in self.model.get_decoder().layers:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        self.objective = fully_shard(objective, mesh=mesh, mp_policy=policy)
        if not all(isinstance(parameter, DTensor) for _, parameter in self._parameters()):
            raise GeneralistError("FSDP2 left parameters whole on every process.")
        self.optimizers = build_optimizers(self.model, recipe.optimizer)

    def describe(self) -> str:
        """See Strategy."""
        return f"FSDP2 over {self.accelerator.num_processes} processes on {self.accelerator.device}"

    def accumulate(self, passes: Sequence[Pass], scale: float) -> tuple[Tensor, Losses]:
        """See Strategy."""

        def backward(loss: Tensor, last: bool) -> None:
            self.objective.set_requires_gradient_sync(last)
            loss.backward()

        return backward_sum(
            self.objective, passes, scale, device=self.accelerator.device, backward=backward
        )

    def step(self) -> float:
        """See Strategy."""
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        norm = _whole(norm)
        (optimizer,) = self.optimizers
        if bool(torch.isfinite(norm)):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(norm)

    # Whole tensors

    def weights(self) -> Tensors:
        """See Strategy."""
        return self._gather({name: parameter for name, parameter in self._parameters()})

    def moments(self) -> Tensors:
        """See Strategy."""
        names = {parameter: name for name, parameter in self._parameters()}
        return self._gather(
            {
                f"{kind}/{names[parameter]}": value
                for parameter, values in self.optimizers[0].state.items()
                for kind, value in values.items()
            }
        )

    def load(self, weights: Tensors, moments: Tensors) -> None:
        """See Strategy."""
        parameters = dict(self._parameters())
        check_names(parameters, weights)
        for name, parameter in parameters.items():
            parameter.to_local().data.copy_(self._my_piece(weights[name], parameter).to_local())
        (optimizer,) = self.optimizers
        optimizer.state.clear()
        for key, whole in moments.items():
            kind, _, name = key.partition("/")
            parameter = parameters[name]
            value = self._my_piece(whole, parameter) if whole.ndim else whole.clone()
            optimizer.state[parameter][kind] = value

    def close(self) -> None:
        """See Strategy."""

    def _parameters(self) -> list[tuple[str, DTensor]]:
        return list(self.model.named_parameters())

    def _gather(self, tensors: dict[str, Tensor]) -> Tensors:
        """Gather whole tensors one after the other; only the main process keeps them."""
        gathered = {}
        for name, tensor in tensors.items():
            whole = _whole(tensor.detach())
            if self.accelerator.is_main_process:
                gathered[name] = whole.cpu().clone()
        return gathered

    def _my_piece(self, whole: Tensor, like: DTensor) -> DTensor:
        whole = whole.to(self.accelerator.device)
        return distribute_tensor(whole, like.device_mesh, like.placements)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
