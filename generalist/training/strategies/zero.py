"""DeepSpeed's ZeRO: shards of moments, gradients and weights over the processes (stages 1, 2, 3).

Source: Rajbhandari et al. 2020, section 5. DeepSpeed's own checkpoints are pickles in shards, which
only the same number of processes can read. Ours hold whole tensors, as under every strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import deepspeed
import torch
from accelerate import Accelerator
from deepspeed.utils import (
    lazy_init_hp_params_optimizer_state,
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn
from torch.nn import functional as F

from generalist.errors import GeneralistError
from generalist.training.gradients import Losses, backward_sum
from generalist.training.objective import TokenObjective
from generalist.training.optimizer import build_optimizers
from generalist.training.passes import Pass
from generalist.training.recipe import Recipe
from generalist.training.strategies.strategy import Tensors, check_names, require_adamw

STEP = "step"  # AdamW's counter, a scalar; its other states have the parameter's shape


BUCKET = 10_000_000  # elements communicated at once; DeepSpeed's own default is 500 million
# Defaults of a DeepSpeed configuration by stage.
DEFAULTS = {
    1: {"reduce_scatter": False, "allgather_bucket_size": BUCKET, "reduce_bucket_size": BUCKET},
    2: {"reduce_scatter": False, "allgather_bucket_size": BUCKET, "reduce_bucket_size": BUCKET},
    3: {
        "reduce_bucket_size": BUCKET,
        "stage3_prefetch_bucket_size": BUCKET,
        "stage3_max_live_parameters": 10 * BUCKET,
        "stage3_max_reuse_distance": BUCKET // 10,
    },
}


def complete(config: dict[str, Any]) -> None:
    """Fill in the defaults of a DeepSpeed configuration, in place.

    Buckets then fit small models too, and torch's AdamW handles offloaded moments.
    """
    zero = config["zero_optimization"]
    for key, value in DEFAULTS.get(zero.get("stage"), {}).items():
        zero.setdefault(key, value)
    config.setdefault("zero_force_ds_cpu_optimizer", False)


class Zero:
    """The strategy (see generalist.training.strategies.strategy) that uses a DeepSpeed engine.

    Args:
        objective: the objective with its model.
        recipe: the recipe of the run.
        accelerator: an accelerator with a DeepSpeed plugin.

    Raises:
        GeneralistError: the configuration has no ZeRO stage above 0, or the optimizer needs whole
            matrices.
    """

    model: nn.Module
    accelerator: Accelerator
    engine: deepspeed.DeepSpeedEngine
    stage: int  # of ZeRO: 1, 2 or 3
    zero: Any  # the engine's optimizer, which shards
    optimizers: list[torch.optim.Optimizer]  # AdamW under it
    cores = 1

    def __init__(self, objective: TokenObjective, recipe: Recipe, accelerator: Accelerator) -> None:
        require_adamw(recipe, "ZeRO")
        self.accelerator = accelerator
        self.model = objective.model
        half = accelerator.mixed_precision == "bf16"
        start = self._copy_of_weights() if half else {}
        (optimizer,) = build_optimizers(self.model, recipe.optimizer)
        config = accelerator.deepspeed_plugin.deepspeed_config
        # The loop itself decides when gradients are complete, and how large a step's batch is.
        complete(config)
        config["gradient_accumulation_steps"] = 1
        config["train_micro_batch_size_per_gpu"] = recipe.data.rows_per_forward
        config["gradient_clipping"] = recipe.optimizer.max_grad_norm
        self.engine, _ = accelerator.prepare(objective, optimizer)
        if not isinstance(self.engine, deepspeed.DeepSpeedEngine):
            raise GeneralistError(
                f"The launcher asked for DeepSpeed, but accelerate made a "
                f"{type(self.engine).__name__} of the model."
            )
        self.stage = self.engine.zero_optimization_stage()
        if self.stage < 1:
            raise GeneralistError(
                "The DeepSpeed configuration has no ZeRO stage above 0; take that of "
                "`generalist recipe zero2`, or of `generalist recipe ddp` to hold everything on "
                "each process."
            )
        if self.stage >= 2 and recipe.world is not None:
            # Seen on two ranks: other gradients of the heads than in one process. Stage 2 adds up
            # gradients as they become ready, and the ranks' passes use different heads. Stage 3
            # holds no table whole.
            raise GeneralistError(
                f"A world model cannot be trained with ZeRO {self.stage}, which gives its heads "
                "wrong gradients on several ranks; take `generalist recipe zero1`."
            )
        self.zero = self.engine.optimizer
        self.optimizers = [self.zero.optimizer]
        if half:  # DeepSpeed makes its float32 weights from rounded ones
            self._load_weights(start)

    def describe(self) -> str:
        """See Strategy."""
        return (
            f"DeepSpeed ZeRO-{self.stage} over {self.accelerator.num_processes} processes on "
            f"{self.accelerator.device}"
        )

    def accumulate(self, passes: Sequence[Pass], scale: float) -> tuple[Tensor, Losses]:
        """See Strategy."""

        def backward(loss: Tensor, last: bool) -> None:
            self.engine.set_gradient_accumulation_boundary(last)
            self.engine.backward(loss)

        return backward_sum(
            self.engine, passes, scale, device=self.accelerator.device, backward=backward
        )

    def step(self) -> float:
        """See Strategy."""
        self.engine.step()
        return float("inf") if self.zero.overflow else float(self.engine.get_global_grad_norm())

    # Whole tensors

    def weights(self) -> Tensors:
        """See Strategy."""
        return self._gather("", self._weight)

    def moments(self) -> Tensors:
        """See Strategy."""
        state: Tensors = next(iter(self.optimizers[0].state.values()), {})
        tensors: Tensors = {}
        self._link_moments()
        # All processes gather in the same order, because each contributes its shard.
        for kind in sorted(kind for kind in state if kind != STEP):
            get = partial(safe_get_full_optimizer_state, optim_state_key=kind)
            tensors |= self._gather(f"{kind}/", get)
        if STEP in state and self.accelerator.is_main_process:
            count = torch.as_tensor(state[STEP]).cpu()
            tensors |= {f"{STEP}/{n}": count.clone() for n, _ in self._parameters(trained=True)}
        return tensors

    def load(self, weights: Tensors, moments: Tensors) -> None:
        """See Strategy."""
        check_names([name for name, _ in self._parameters()], weights)
        self._load_weights(weights)
        if moments:
            self._load_moments(moments)

    def close(self) -> None:
        """See Strategy."""
        self.engine.destroy()

    def _parameters(self, trained: bool = False) -> list[tuple[str, nn.Parameter]]:
        """All parameters by name, or only trained ones, which have moments."""
        named = self.model.named_parameters()
        return [(name, p) for name, p in named if p.requires_grad or not trained]

    def _copy_of_weights(self) -> Tensors:
        return {name: p.detach().to("cpu", copy=True) for name, p in self._parameters()}

    def _gather(self, prefix: str, get: Callable[[nn.Parameter], Tensor]) -> Tensors:
        """Gather whole tensors one after the other; only the main process keeps them."""
        gathered = {}
        for name, parameter in self._parameters(trained=bool(prefix)):
            whole = get(parameter)
            if self.accelerator.is_main_process:
                gathered[prefix + name] = whole.detach().float().cpu().clone()
        return gathered

    def _weight(self, parameter: nn.Parameter) -> Tensor:
        """A whole weight. The optimizer has no float32 copy of a weight that is not trained."""
        if parameter.requires_grad:
            return safe_get_full_fp32_param(parameter)
        with self._gathered(parameter):
            return parameter.detach().clone()

    def _gathered(self, parameter: nn.Parameter, writer: int | None = None) -> Any:
        """A context in which a stage 3 parameter is whole; the writes of rank `writer` are kept."""
        if self.stage < 3:
            return nullcontext()
        return deepspeed.zero.GatheredParameters([parameter], modifier_rank=writer)

    def _load_weights(self, weights: Tensors) -> None:
        for name, parameter in self._parameters():
            whole = weights[name].to(self.accelerator.device)
            if parameter.requires_grad and self.stage == 3:
                safe_set_local_fp32_param(parameter, self._my_piece(parameter, whole))
            elif parameter.requires_grad:
                safe_set_full_fp32_param(parameter, whole)
            with self._gathered(parameter, writer=0):
                parameter.data.copy_(whole)

    def _load_moments(self, moments: Tensors) -> None:
        kinds = sorted({key.partition("/")[0] for key in moments} - {STEP})
        count = next(value for key, value in moments.items() if key.startswith(f"{STEP}/"))
        (optimizer,) = self.optimizers
        for piece in self._flat_pieces():  # pieces have no state before the first step
            state = {kind: torch.zeros_like(piece) for kind in kinds}
            optimizer.state[piece] = {STEP: count.clone(), **state}
        self._link_moments()
        for name, parameter in self._parameters(trained=True):
            for kind in kinds:
                whole = moments[f"{kind}/{name}"].to(self.accelerator.device)
                if self.stage == 3:
                    mine = self._my_piece(parameter, whole)
                    safe_set_local_optimizer_state(parameter, mine, kind)
                else:
                    safe_set_full_optimizer_state(parameter, whole, kind)

    def _flat_pieces(self) -> list[Tensor]:
        """The float32 weights of this process as the optimizer has them: one vector per group."""
        if self.stage == 3:
            return list(self.zero.fp32_partitioned_groups_flat)
        return list(self.zero.single_partition_of_fp32_groups)

    def _link_moments(self) -> None:
        """Link each parameter to its piece of the flat moments, in stages 1 and 2.

        DeepSpeed does this in the first step, when only the first of several groups has moments.
        """
        if self.stage == 3 or not self.optimizers[0].state:
            return
        for parameters, piece in zip(self.zero.bit16_groups, self._flat_pieces(), strict=True):
            lazy_init_hp_params_optimizer_state(parameters, piece, self.optimizers[0].state)

    def _my_piece(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
        """This process's share of a parameter of stage 3, padded to the length of all shares."""
        size = parameter.ds_tensor.numel()
        start = size * self.accelerator.process_index
        flat = F.pad(
            whole.flatten().float(), (0, size * self.accelerator.num_processes - whole.numel())
        )
        return flat[start : start + size]
