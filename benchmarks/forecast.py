"""What acting, data and training would take on hardware that is not here, on paper.

Nothing is run: parameters, FLOPs and bytes come from the recipe (`generalist.training.plan`), the
device's rates from its data sheet, times an efficiency that is stated and can be changed. Every
number is one of the formulas below; docs/scaling.md explains them.

    python -m benchmarks.forecast                       one H100 for acting, up to 64 for training
    python -m benchmarks.forecast --bandwidth 2e12 --flops 312e12 --memory 80e9   an A100

Symbols: N = parameters of the body, B = bytes of one value (2 in bf16), K = width of the heads of
keys and values, C = tokens of context, k = action tokens, s = observation tokens, n = GPUs.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import print_table, screen, write_json
from generalist.shards.shards import SHARD_TOKENS
from generalist.training.plan import flops_of, memory_per_rank, parameters_of, vocabulary_size_of
from generalist.training.recipe import Recipe, load_recipe

VALUE_BYTES = 2
FED_CACHES = 1.5
SIZES = ("79m", "364m", "1.18b")
WORLD_SIZES = (1, 8, 64)
ENVIRONMENTS = (1, 16, 256)
STAGES = {"DDP": 0, "ZeRO 1": 1, "ZeRO 2": 2, "ZeRO 3": 3}
GPUS_PER_NODE = 8


@dataclass(frozen=True)
class Device:
    """A GPU: peaks by its data sheet, and the share of each that is counted on."""

    bandwidth: float  # bytes/s of its memory
    flops: float  # bf16, dense
    memory: float  # bytes
    link: float  # bytes/s to the GPUs of its node, one way
    network: float  # bytes/s to other nodes, one way
    reached_bandwidth: float  # shares
    reached_flops: float


@dataclass(frozen=True)
class Acting:
    """A timestep of so many environments on one device."""

    size: str
    environments: int
    step_ms: float
    bound: str  # by what
    steps_per_second: float  # of all environments together
    memory_gb: float
    fits: bool


@dataclass(frozen=True)
class Storage:
    """Shards of so many environments that are all watched for a while."""

    environments: int
    hours: float  # of each environment
    tokens: float
    terabytes: float
    shards: int


@dataclass(frozen=True)
class Training:
    """An optimizer step of the recipe's batch on so many GPUs."""

    size: str
    strategy: str
    gpus: int
    compute_seconds: float
    communication_seconds: float
    step_seconds: float  # communication hidden behind the backward pass as far as it fits there
    days: float  # of the recipe's schedule
    memory_gb: float  # weights, gradients and moments of a rank


def key_bytes_per_token(recipe: Recipe) -> int:
    """2 layers K B: keys and values of one token of context."""
    model = recipe.model
    head = model.head_dim or model.hidden_size // model.heads
    return 2 * model.layers * (model.kv_heads or model.heads) * head * VALUE_BYTES


def acting(
    size: str, device: Device, environments: int, observation_tokens: int, action_tokens: int
) -> Acting:
    """k passes, each of which reads N B of weights and C keys and values for every environment.

    A pass takes N B + environments C 2 layers K B bytes, and 2 N FLOPs a token fed; the larger of
    the two times is taken, each at the share of the peak that is reached. The first pass is fed all
    but one token a later pass and environment. C is three quarters of the window, the mean under
    staggered caches, of which a slot feeds FED_CACHES on average; allocated are two.
    """
    recipe = load_recipe(f"sizes/{size}")
    body = parameters_of(recipe.model, vocabulary_size_of(recipe)).body
    window, keys = recipe.data.window_tokens, key_bytes_per_token(recipe)
    moved = body * VALUE_BYTES + environments * 0.75 * window * keys
    by_bytes = moved / (device.bandwidth * device.reached_bandwidth)
    fed = environments * FED_CACHES * (observation_tokens + action_tokens)
    later = action_tokens - 1

    def by_flops(tokens: float) -> float:
        return 2 * body * tokens / (device.flops * device.reached_flops)

    first = by_flops(fed - later * environments)
    seconds = max(by_bytes, first) + later * max(by_bytes, by_flops(environments))
    held = body * VALUE_BYTES + 2 * environments * window * keys
    return Acting(
        size,
        environments,
        1e3 * seconds,
        "bytes" if by_bytes >= first else "bytes, first pass FLOPs",
        environments / seconds,
        held / 1e9,
        held < device.memory,
    )


def acting_compact(
    size: str, device: Device, environments: int, action_tokens: int, context_steps: int
) -> Acting:
    """One pass of k positions, whatever is observed: as `acting`, with G = 1 and no later pass.

    C is three quarters of `context_steps` timesteps of k positions. Embedders and head are left
    out: they read the rows of a few tokens.
    """
    recipe = load_recipe(f"sizes/{size}")
    body = parameters_of(recipe.model, vocabulary_size_of(recipe)).body
    context, keys = context_steps * action_tokens, key_bytes_per_token(recipe)
    moved = body * VALUE_BYTES + environments * 0.75 * context * keys
    by_bytes = moved / (device.bandwidth * device.reached_bandwidth)
    by_flops = 2 * body * environments * FED_CACHES * action_tokens
    by_flops /= device.flops * device.reached_flops
    seconds = max(by_bytes, by_flops)
    held = body * VALUE_BYTES + 2 * environments * context * keys
    return Acting(
        size,
        environments,
        1e3 * seconds,
        "bytes" if by_bytes >= by_flops else "FLOPs",
        environments / seconds,
        held / 1e9,
        held < device.memory,
    )


def training(size: str, device: Device, strategy: str, gpus: int) -> Training:
    """A step: 6 N and attention for each token, over n GPUs, and what they tell each other.

    Bytes that a rank sends and receives in a step (Rajbhandari et al. 2020, section 7): 2 P B (n -
    1) / n for ZeRO 1 and ZeRO 2, where P are all parameters, half as much again for ZeRO 3, and
    twice as much for DDP, whose gradients are float32. Within a node they go over its links; beyond
    it, every GPU's part over the slower network. Two thirds of the compute is the backward pass,
    behind which communication hides.
    """
    recipe = load_recipe(f"sizes/{size}")
    vocabulary_size = vocabulary_size_of(recipe)
    parameters = parameters_of(recipe.model, vocabulary_size)
    window = recipe.data.window_tokens
    flops = flops_of(
        recipe.model, parameters, vocabulary_size=vocabulary_size, window_tokens=window
    )
    tokens = recipe.data.rows_per_step * window
    compute = tokens * (flops.body + flops.attention) / (gpus * device.flops * device.reached_flops)
    bytes_a_parameter = {"DDP": 2 * 4, "ZeRO 3": 3 * VALUE_BYTES}.get(strategy, 2 * VALUE_BYTES)
    moved = bytes_a_parameter * parameters.total * (gpus - 1) / gpus
    communication = moved / (device.link if gpus <= GPUS_PER_NODE else device.network)
    step = compute + max(0.0, communication - 2 / 3 * compute)
    memory = memory_per_rank(parameters, "bf16", STAGES[strategy], world_size=gpus)
    days = (recipe.schedule.steps or 0) * step / 86_400
    return Training(size, strategy, gpus, compute, communication, step, days, memory.total / 1e9)


def storage(
    environments: int, hours: float, hertz: float, observation_tokens: int, action_tokens: int
) -> Storage:
    """Two bytes a token (a vocabulary below 65,536), four a reward, two for each token of a label.

    A timestep has a separator between observation and action.
    """
    steps = environments * hours * 3600 * hertz
    tokens = steps * (observation_tokens + 1 + action_tokens)
    size = 2 * tokens + 4 * steps + 2 * steps * action_tokens
    return Storage(environments, hours, tokens, size / 1e12, math.ceil(tokens / SHARD_TOKENS))


def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--bandwidth", type=float, default=3.35e12, help="bytes/s of its memory")
    parser.add_argument("--flops", type=float, default=989e12, help="peak in bf16, dense")
    parser.add_argument("--memory", type=float, default=80e9, help="bytes")
    parser.add_argument("--link", type=float, default=450e9, help="bytes/s within a node, one way")
    parser.add_argument("--network", type=float, default=50e9, help="bytes/s a GPU between nodes")
    parser.add_argument("--reached-bandwidth", type=float, default=0.6, help="share of its peak")
    parser.add_argument("--reached-flops", type=float, default=0.4, help="share of its peak")
    parser.add_argument("--observation-tokens", type=int, default=18)
    parser.add_argument("--action-tokens", type=int, default=6)
    parser.add_argument(
        "--context-steps", type=int, default=16, help="timesteps in view, in the compact form"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as JSON")
    given = parser.parse_args(arguments)
    device = Device(
        given.bandwidth, given.flops, given.memory, given.link, given.network,
        given.reached_bandwidth, given.reached_flops,
    )  # fmt: skip
    acted = [
        acting(size, device, count, given.observation_tokens, given.action_tokens)
        for size in SIZES
        for count in ENVIRONMENTS
    ]
    compact = [
        acting_compact(size, device, count, given.action_tokens, given.context_steps)
        for size in SIZES
        for count in ENVIRONMENTS
    ]
    trained = [
        training(size, device, strategy, gpus)
        for size in SIZES
        for strategy in STAGES
        for gpus in WORLD_SIZES
    ]
    stored = [
        storage(count, 1.0, 20.0, given.observation_tokens, given.action_tokens)
        for count in (1_000, 1_000_000)
    ]
    console = screen()
    columns = ["model", "environments", "ms a timestep", "bound by", "steps/s", "GB", "fits"]
    for form, found in (("flat", acted), ("compact", compact)):
        title = f"Acting on one device, {form} form"
        print_table(console, title, columns, (asdict(a).values() for a in found))  # type: ignore[misc]
    columns = ["environments", "hours each", "tokens", "TB", "shards"]
    print_table(console, "Data", columns, (asdict(each).values() for each in stored))  # type: ignore[misc]
    columns = ["model", "strategy", "GPUs", "compute s", "talk s", "step s", "days", "GB a rank"]
    print_table(console, "Training", columns, (asdict(t).values() for t in trained))  # type: ignore[misc]
    write_json(
        given.json,
        {
            "device": asdict(device),
            "acting": [asdict(each) for each in acted],
            "acting_compact": [asdict(each) for each in compact],
            "data": [asdict(each) for each in stored],
            "training": [asdict(each) for each in trained],
        },
    )


if __name__ == "__main__":
    main()
