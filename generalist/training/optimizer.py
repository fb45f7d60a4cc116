"""The optimizers and the learning rate schedule of a run."""

from __future__ import annotations

import math

import torch
from torch import nn

from generalist.modeling.embedders import embedders_of
from generalist.modeling.values import values_of
from generalist.training.muon import BatchedMuon
from generalist.training.recipe import OptimizerRecipe, ScheduleRecipe


def build_optimizers(model: nn.Module, recipe: OptimizerRecipe) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters, or Muon for the body's matrices and AdamW for the rest.

    Weight decay applies to the matrices of the body and of embedders, not to norms, biases and
    tables.
    """
    tables = {
        id(layer.weight)
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())
        if layer is not None
    }
    if (embedders := embedders_of(model)) is not None:
        tables |= {id(table) for table in embedders.tables}
    if (values := values_of(model)) is not None:
        tables |= {id(p) for p in values.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim == 2 and id(p) not in tables]
    others = [p for p in trained if p.ndim != 2 or id(p) in tables]
    groups = [{"params": others, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = []
    if recipe.name == "muon":
        optimizers.append(BatchedMuon(matrices, lr=recipe.lr, weight_decay=recipe.weight_decay))
    else:
        groups.append({"params": matrices, "weight_decay": recipe.weight_decay})
    fused = all(p.device.type in ("cpu", "cuda") for p in trained)
    adamw = torch.optim.AdamW(
        groups, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, weight_decay=0.0, fused=fused
    )
    return [*optimizers, adamw]


def progress(schedule: ScheduleRecipe, step: int, elapsed_seconds: float) -> float:
    """Progress of a run in [0, 1]: by steps or by minutes, whichever is larger."""
    shares = [0.0]
    if schedule.steps is not None:
        shares.append(step / schedule.steps)
    if schedule.minutes is not None:
        shares.append(elapsed_seconds / (60 * schedule.minutes))
    return min(1.0, max(shares))


def learning_rate_factor(schedule: ScheduleRecipe, step: int, done: float) -> float:
    """Factor on the peak learning rate: linear warm-up over steps, half a cosine over progress.

    Args:
        schedule: warm-up steps and final fraction.
        step: the step, from 0.
        done: progress of the schedule, in [0, 1].
    """
    warmup = min(1.0, (step + 1) / max(1, schedule.warmup_steps))
    floor = schedule.final_lr_fraction
    return warmup * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def set_learning_rate(optimizers: list[torch.optim.Optimizer], lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
