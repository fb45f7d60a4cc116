"""Whole weights on every process: one process, or several that average gradients (DDP)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from generalist.errors import GeneralistError
from generalist.processes import usable_cpus
from generalist.training.gradients import Losses, ParallelGradients, SequentialGradients
from generalist.training.objective import TokenObjective
from generalist.training.optimizer import build_optimizers
from generalist.training.passes import Pass
from generalist.training.recipe import Recipe
from generalist.training.strategies.strategy import Tensors, check_names


class Replicated:
    """The strategy of one process, or of several that hold all weights and average gradients (DDP).

    Args:
        objective: the objective with its model.
        recipe: the recipe of the run.
        accelerator: its accelerator.

    Raises:
        GeneralistError: accelerate did not wrap the model for several processes.
    """

    model: nn.Module
    accelerator: Accelerator
    max_norm: float
    optimizers: list[torch.optim.Optimizer]
    gradients: ParallelGradients | SequentialGradients
    cores: int

    def __init__(self, objective: TokenObjective, recipe: Recipe, accelerator: Accelerator) -> None:
        self.model, self.accelerator = objective.model, accelerator
        self.max_norm = recipe.optimizer.max_grad_norm
        self.optimizers = build_optimizers(self.model, recipe.optimizer)
        # A single process on a CPU uses all cores; otherwise accelerate decides.
        alone = accelerator.num_processes == 1 and accelerator.device.type == "cpu"
        if alone and accelerator.mixed_precision == "no":
            self.gradients = ParallelGradients(objective, recipe.cores or usable_cpus())
        else:
            prepared = accelerator.prepare_model(objective)
            check_wrapped(prepared, accelerator)
            self.gradients = SequentialGradients(prepared, accelerator)
        self.cores = self.gradients.cores

    def describe(self) -> str:
        """See Strategy."""
        processes = self.accelerator.num_processes
        if processes > 1:
            return f"DDP over {processes} processes on {self.accelerator.device}"
        cores = f" ({self.cores} cores)" if self.cores > 1 else ""
        return f"1 process on {self.accelerator.device}{cores}"

    def accumulate(self, passes: Sequence[Pass], scale: float) -> tuple[Tensor, Losses]:
        """See Strategy."""
        return self.gradients.accumulate(passes, scale)

    def step(self) -> float:
        """See Strategy."""
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_norm)
        finite = bool(torch.isfinite(norm))
        for optimizer in self.optimizers:
            if finite:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def weights(self) -> Tensors:
        """See Strategy."""
        if not self.accelerator.is_main_process:
            return {}  # all ranks hold the same; one writes
        tied = _tied_names(self.model)
        state = self.model.state_dict()
        return {k: v.cpu().contiguous() for k, v in state.items() if k not in tied}

    def moments(self) -> Tensors:
        """See Strategy."""
        if not self.accelerator.is_main_process:
            return {}
        names = {id(p): name for name, p in self.model.named_parameters()}
        tensors = {}
        for optimizer in self.optimizers:
            for parameter, values in optimizer.state.items():
                for kind, value in values.items():
                    # safetensors needs tensors that own their memory.
                    tensors[f"{kind}/{names[id(parameter)]}"] = torch.as_tensor(value).cpu().clone()
        return tensors

    def load(self, weights: Tensors, moments: Tensors) -> None:
        """See Strategy."""
        load_weights(self.model, weights)
        parameters = dict(self.model.named_parameters())
        owner = {
            id(p): o for o in self.optimizers for group in o.param_groups for p in group["params"]
        }
        for optimizer in self.optimizers:
            optimizer.state.clear()
        for key, tensor in moments.items():
            kind, _, name = key.partition("/")
            parameter = parameters[name]
            owner[id(parameter)].state[parameter][kind] = tensor.to(parameter.device)

    def close(self) -> None:
        """See Strategy."""
        self.gradients.close()


def check_wrapped(objective: nn.Module, accelerator: Accelerator) -> None:
    """Check that the model of several processes averages gradients.

    Raises:
        GeneralistError: it does not.
    """
    if accelerator.num_processes > 1 and not isinstance(objective, DistributedDataParallel):
        raise GeneralistError(
            f"{accelerator.num_processes} processes would train, but accelerate left the model a "
            f"{type(objective).__name__} that averages no gradients (distributed type "
            f"{accelerator.distributed_type.value}). Use that of `generalist recipe ddp`."
        )


def load_weights(model: nn.Module, weights: Tensors) -> None:
    """Load whole weights by name into a model.

    Raises:
        GeneralistError: the names are not those of the model.
    """
    tied = _tied_names(model)
    check_names([name for name in model.state_dict() if name not in tied], weights)
    # A tied head is stored once, under its first name; strict=False lets the second be missing.
    model.load_state_dict(weights, strict=False)


def _tied_names(model: nn.Module) -> set[str]:
    """State-dict names of tensors that have an earlier name too."""
    seen: set[int] = set()
    tied = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            tied.add(name)
        seen.add(id(tensor))
    return tied
