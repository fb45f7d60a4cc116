"""Plan a run from its recipe alone: parameters, FLOPs, memory, and time at a given rate.

A plan builds no weights and opens no data. So the facts of the data (lengths of segments, share of
targets) enter as their upper bounds: a window is one segment, and every token a target.

Symbols: V = vocabulary size, D = hidden size, Q = width of all heads, K = width of the heads of
keys and values, F = width inside the feed-forward block, L = window tokens.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from generalist.errors import UsageError
from generalist.modeling.recipe import ModelRecipe
from generalist.training.recipe import Recipe, ScheduleRecipe

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
VALUE_BYTES = {"fp32": 4, "bf16": 2}
STAGES = ("DDP", "ZeRO 1", "ZeRO 2", "ZeRO 3")  # by their number; 0 shards nothing
WORLD_SIZES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Parameters:
    """Numbers of trainable parameters by kind.

    Attributes:
        matrices: parameters of the blocks' matrices.
        norms: parameters of all norms.
        tables: parameters of input embedding and head, which may be tied.
    """

    matrices: int
    norms: int
    tables: int

    @property
    def body(self) -> int:
        """All but input embedding and head."""
        return self.matrices + self.norms

    @property
    def total(self) -> int:
        """All parameters."""
        return self.body + self.tables


@dataclass(frozen=True)
class Flops:
    """Floating point operations per token, forward and backward.

    Attributes:
        body: of the parameters of the body.
        attention: of the products of queries, keys and values.
        head: of the head, for a token that is a target; others have none.
    """

    body: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        """FLOPs of a token that is a target."""
        return self.body + self.attention + self.head


@dataclass(frozen=True)
class Memory:
    """Bytes that training holds on each rank from step to step.

    Attributes:
        weights: bytes of the weights in the precision of the forward pass.
        gradients: bytes of the gradients.
        optimizer: bytes of moments and, with bf16, of the float32 weights.
    """

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """Bytes of all three."""
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class Activations:
    """Bytes that one forward pass keeps for its backward pass.

    Attributes:
        blocks: bytes of the blocks' activations.
        head: bytes of the head's activations, if every token is a target.
    """

    blocks: int
    head: int

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.blocks + self.head


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arithmetic, memory and time that a run needs.

    Attributes:
        vocabulary_size: V.
        parameters: numbers of parameters.
        flops_per_token: FLOPs of a token.
        rows_per_step: rows of an optimizer step, over all ranks.
        rows_per_forward: rows of a forward pass on one rank.
        window_tokens: L.
        memory: (precision, stage of ZeRO, number of ranks) -> bytes on each rank.
        activations: precision -> bytes of a forward pass.
        seconds_per_step: seconds of an optimizer step; None without a rate.
        hours: hours of the run; None without a rate, or where the schedule has no steps.
    """

    vocabulary_size: int
    parameters: Parameters
    flops_per_token: Flops
    rows_per_step: int
    rows_per_forward: int
    window_tokens: int
    memory: dict[tuple[Precision, int, int], Memory]
    activations: dict[Precision, Activations]
    seconds_per_step: float | None
    hours: float | None

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an optimizer step, over all ranks."""
        return self.rows_per_step * self.window_tokens

    @property
    def flops_per_step(self) -> float:
        """FLOPs of an optimizer step, over all ranks."""
        return self.tokens_per_step * self.flops_per_token.total

    def to_dict(self) -> dict[str, Any]:
        """JSON form; names carry the unit."""
        return {
            "vocabulary_size": self.vocabulary_size,
            "parameters": {"total": self.parameters.total, "body": self.parameters.body},
            "flops_per_token": asdict(self.flops_per_token) | {"total": self.flops_per_token.total},
            "rows_per_step": self.rows_per_step,
            "rows_per_forward": self.rows_per_forward,
            "window_tokens": self.window_tokens,
            "tokens_per_step": self.tokens_per_step,
            "flops_per_step": self.flops_per_step,
            "memory_per_rank_bytes": [
                {"precision": precision, "stage": stage, "world_size": world_size}
                | asdict(memory)
                | {"total": memory.total}
                for (precision, stage, world_size), memory in self.memory.items()
            ],
            "activations_per_forward_bytes": {
                precision: asdict(activations) | {"total": activations.total}
                for precision, activations in self.activations.items()
            },
            "seconds_per_step": self.seconds_per_step,
            "hours": self.hours,
        }


def plan_run(recipe: Recipe, vocabulary_size: int, flops_per_second: float | None = None) -> Plan:
    """Plan a run for all precisions, stages of ZeRO and world sizes.

    Args:
        recipe: the recipe of the run.
        vocabulary_size: V.
        flops_per_second: sustained rate of all devices together; None: no estimate of the time.

    Raises:
        UsageError: the rate is not a positive number.
    """
    if flops_per_second is not None and not 0 < flops_per_second < math.inf:
        raise UsageError(f"{flops_per_second} FLOP/s is no rate; give a positive number (4e14).")
    data = recipe.data
    parameters = parameters_of(recipe.model, vocabulary_size)
    sizes = {"vocabulary_size": vocabulary_size, "window_tokens": data.window_tokens}
    flops = flops_of(recipe.model, parameters, **sizes)
    rows_per_forward = min(data.rows_per_forward, data.rows_per_step)
    seconds = None
    if flops_per_second is not None:
        seconds = flops.total * data.rows_per_step * data.window_tokens / flops_per_second
    return Plan(
        vocabulary_size=vocabulary_size,
        parameters=parameters,
        flops_per_token=flops,
        rows_per_step=data.rows_per_step,
        rows_per_forward=rows_per_forward,
        window_tokens=data.window_tokens,
        memory={
            (precision, stage, world_size): memory_per_rank(
                parameters,
                precision,
                stage,
                world_size=world_size,
                optimizer=recipe.optimizer.name,
            )
            for precision in PRECISIONS
            for stage in range(len(STAGES))
            for world_size in WORLD_SIZES
        },
        activations={
            precision: activation_memory(
                recipe.model,
                vocabulary_size,
                rows=rows_per_forward,
                window_tokens=data.window_tokens,
                precision=precision,
            )
            for precision in PRECISIONS
        },
        seconds_per_step=seconds,
        hours=None if seconds is None else run_hours(recipe.schedule, seconds),
    )


def vocabulary_size_of(recipe: Recipe) -> int:
    """V of the recipe's processor, which is the shipped one if the recipe names none."""
    from generalist.tokenization.processor import load_processor

    return load_processor(recipe.data.processor).vocabulary.size


def parameters_of(model: ModelRecipe, vocabulary_size: int) -> Parameters:
    """The numbers of parameters of the model that a recipe describes.

    A block has 2 D Q + 2 D K in attention: queries and output, keys and values. It has 3 D F in
    SwiGLU, and two norms of D; Qwen3 also one for the queries and one for the keys of a head.
    """
    width, layers = model.hidden_size, model.layers
    query, key = _attention_widths(model)
    matrices = 2 * width * (query + key) + 3 * width * model.intermediate_size
    norms = 2 * width
    if model.architecture == "qwen3":
        norms += 2 * (query // model.heads)
    tables = (1 if model.tie_embeddings else 2) * vocabulary_size * width
    return Parameters(layers * matrices, layers * norms + width, tables)


def flops_of(
    model: ModelRecipe, parameters: Parameters, *, vocabulary_size: int, window_tokens: int
) -> Flops:
    """FLOPs of a token, forward and backward: 6 N + 12 layers Q C, and 6 D V for a target.

    N is the number of parameters of the body. Each takes a multiplication and an addition forward,
    and twice that backward (Kaplan et al. 2020, section 2.1; PaLM, Chowdhery et al. 2022, appendix
    B). C is the context that a token attends to. PaLM counts the whole window. This counts what a
    causal model needs: (L + 1) / 2 on average, in a window of one segment. Shorter segments need
    less; a kernel that computes masked products does up to twice as much.
    """
    return Flops(
        body=6.0 * parameters.body,
        attention=attention_flops(model, (window_tokens + 1) / 2),
        head=6.0 * model.hidden_size * vocabulary_size,
    )


def attention_flops(model: ModelRecipe, attended: float) -> float:
    """FLOPs of attention to C = `attended` tokens, forward and backward: 12 layers Q C."""
    query, _ = _attention_widths(model)
    return 12.0 * model.layers * query * attended


def memory_per_rank(
    parameters: Parameters,
    precision: Precision,
    stage: int,
    *,
    world_size: int,
    optimizer: Literal["adamw", "muon"] = "adamw",
) -> Memory:
    """Bytes of weights, gradients and optimizer state on each rank (Rajbhandari et al. 2020).

    Section 3.1: in mixed precision Adam takes 2 + 2 + 12 bytes per parameter, because the optimizer
    holds the weights in fp32 beside its two moments. In fp32 it takes 4 + 4 + 8. Muon keeps one
    moment of the blocks' matrices.

    Section 5: stage 1 of ZeRO divides the optimizer's state over the ranks, 2 also the gradients,
    3 also the weights. Stage 0 is DDP. There bf16 is autocast, with weights and gradients in fp32:
    the same 16 bytes, as 4 + 4 + 8.

    This does not count communication buffers and memory that the allocator leaves unused.
    """
    values = VALUE_BYTES[precision] * parameters.total
    moments = 4 * (2 * parameters.total - (parameters.matrices if optimizer == "muon" else 0))
    master = 4 * parameters.total if precision == "bf16" else 0

    def share(size: int, from_stage: int) -> int:
        return -(-size // world_size) if stage >= from_stage else size

    return Memory(
        weights=share(values, 3), gradients=share(values, 2), optimizer=share(master + moments, 1)
    )


def activation_memory(
    model: ModelRecipe,
    vocabulary_size: int,
    *,
    rows: int,
    window_tokens: int,
    precision: Precision,
) -> Activations:
    """Bytes that a forward pass of `rows` windows keeps for its backward pass.

    The count follows Korthikanti et al. 2022, section 4.1, without recomputation. They find
    s b h (34 + 5 a s / h) bytes per block. Their block has GELU, dropout and stored attention
    scores; ours has SwiGLU and neither of the others. In a block a token keeps, with b bytes per
    value (4 in fp32, 2 in bf16):

    - 16 D for the inputs and the normalised values of both norms, which run in fp32. Their outputs
      take 8 D in fp32, or 10 D in bf16, where autocast copies them for each of five matrices.
    - 4 b Q for queries, keys, values and output of attention, and b L for the mask that separates
      packed segments. Qwen3 adds (4 + b) (Q + K) for the norms of queries and keys.
    - 4 b F for gate, its SiLU, up, and their product in SwiGLU.

    Autocast also keeps a copy of the matrices in bf16. The head takes 8 V per target, for logits
    and probabilities in fp32. This is the plain forward pass; `compile` and the lean pass on a CPU
    keep less.
    """
    tokens, size = rows * window_tokens, VALUE_BYTES[precision]
    query, key = _attention_widths(model)
    in_bf16 = precision == "bf16"
    block = (26 if in_bf16 else 24) * model.hidden_size
    block += size * (4 * query + window_tokens + 4 * model.intermediate_size)
    if model.architecture == "qwen3":
        block += (4 + size) * (query + key)
    copies = 2 * parameters_of(model, vocabulary_size).matrices if in_bf16 else 0
    return Activations(tokens * model.layers * block + copies, tokens * 8 * vocabulary_size)


def run_hours(schedule: ScheduleRecipe, seconds_per_step: float) -> float | None:
    """Hours of training until the schedule ends; None where it has no number of steps.

    This does not count corrections, checkpoints and waiting for data.
    """
    if schedule.steps is None:
        return None
    minutes = schedule.steps * seconds_per_step / 60
    return min(minutes, schedule.minutes or math.inf) / 60


def _attention_widths(model: ModelRecipe) -> tuple[int, int]:
    """The widths Q and K."""
    head_dim = model.head_dim or model.hidden_size // model.heads
    return model.heads * head_dim, (model.kv_heads or model.heads) * head_dim


def describe(plan: Plan) -> str:
    """The plan as a table for people; memory in GB of 10^9 bytes."""
    flops = plan.flops_per_token
    lines = [
        f"parameters       {plan.parameters.total:,} in all, {plan.parameters.body:,} in the body "
        f"(vocabulary of {plan.vocabulary_size:,})",
        f"tokens a step    {plan.tokens_per_step:,} ({plan.rows_per_step:,} rows of "
        f"{plan.window_tokens:,})",
        f"FLOPs a token    {flops.total:.3g} (body {flops.body:.3g}, attention at most "
        f"{flops.attention:.3g}, head {flops.head:.3g} where it is a target)",
        f"FLOPs a step     {plan.flops_per_step:.3g} (every token counted as a target)",
        f"time             {_time(plan)}",
        "",
        "GB on each rank for weights, gradients and optimizer state, by number of ranks:",
        " " * 16 + "".join(f"{size:>10}" for size in WORLD_SIZES),
    ]
    for precision in PRECISIONS:
        for stage, name in enumerate(STAGES):
            totals = [plan.memory[precision, stage, size].total for size in WORLD_SIZES]
            lines.append(f"{precision} {name:<11}" + "".join(f"{n / 1e9:>10,.3f}" for n in totals))
    lines += ["", f"GB of activations, in a forward pass of {plan.rows_per_forward} row(s):"]
    for precision, kept in plan.activations.items():
        lines.append(
            f"{precision} {kept.blocks / 1e9:,.3f} in the blocks, and at most "
            f"{kept.head / 1e9:,.3f} in the head"
        )
    return "\n".join(lines)


def _time(plan: Plan) -> str:
    if plan.seconds_per_step is None:
        return "not estimated; --flops gives the sustained FLOP/s of all devices together"
    step = f"{plan.seconds_per_step:.3g} s a step"
    if plan.hours is None:
        return f"{step}; the schedule ends by the clock"
    return f"{step}, {plan.hours:,.2f} hours for the run"
