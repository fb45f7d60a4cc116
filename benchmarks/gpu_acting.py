"""How long a timestep takes on a GPU, beside the least it could take, and beside other code.

The model is a recipe's (recipes/sizes), with random weights in bfloat16; a timestep is 18
observation and 6 action tokens of every environment, with windows of 1,024 tokens turning over.

    python -m benchmarks.gpu_acting --size 79m --size 364m

graphs: `generalist.acting.Decoder` as it acts on a GPU.
compact: the same in the compact form, a timestep in one forward pass.
plain: the same through the model's own code, in one call for all environments.
generate: Hugging Face `generate()` going on from its cache; one environment.

The floor is that of docs/scaling.md, with the rates of this GPU measured in this run: the bytes of
weights, keys and values that a pass has to read at the speed of a large copy, or its FLOPs at the
speed of a large product, whichever takes longer; summed over the passes of a timestep.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel

from benchmarks.acting import compact_step, decoder_step
from benchmarks.acting_peers import ACTION_TOKENS, OBSERVATION_TOKENS, GeneratePeer
from benchmarks.forecast import Device, acting
from benchmarks.measure import interleaved, print_table, quantile, screen, write_json
from generalist.decoding.decoder import Decoder
from generalist.modeling.build import build_model
from generalist.specs import list_specs
from generalist.tokenization.processor import GeneralistProcessor
from generalist.training.recipe import load_recipe

WINDOW = 1024


@dataclass
class Timing:
    """A timestep of all environments."""

    size: str
    environments: int
    way: str
    median_ms: float
    p99_ms: float
    steps_per_second: float  # of all environments
    floor_ms: float
    share_of_floor: float


def seconds_of(work: Callable[[], object], calls: int) -> float:
    """GPU seconds of a call."""
    work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


def this_gpu() -> Device:
    """What it moves and computes at most: a copy of 2 GB, a product of 8,192 by 8,192 in bf16."""
    numbers = torch.randn(1 << 29, device="cuda")
    into = torch.empty_like(numbers)
    bandwidth = 2 * numbers.nbytes / seconds_of(lambda: into.copy_(numbers), 10)
    left, right = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
    flops = 2 * 8192**3 / seconds_of(lambda: left @ right, 10)
    memory = torch.cuda.get_device_properties(0).total_memory
    return Device(bandwidth, flops, memory, 0.0, 0.0, 1.0, 1.0)


def model_of(size: str) -> PreTrainedModel:
    """Random weights in float32, on the GPU."""
    vocabulary = GeneralistProcessor.default().vocabulary
    return build_model(load_recipe(f"sizes/{size}").model, vocabulary, WINDOW).eval().to("cuda")


def measure(
    size: str,
    model: PreTrainedModel,
    environments: int,
    ways: list[str],
    rounds: int,
    gpu: Device,
) -> tuple[list[Timing], dict[str, Callable[[], object]]]:
    """Time the ways in turns; returns what a timestep of each is, too."""
    vocabulary = GeneralistProcessor.default().vocabulary
    steps: dict[str, Callable[[], object]] = {}
    for way in ways:
        if way == "generate":
            steps[way] = GeneratePeer(model, vocabulary, WINDOW).step
        elif way == "compact":
            steps[way] = compact_step(model, vocabulary, WINDOW, environments)
        else:
            plain = way == "plain"
            steps[way] = decoder_step(model, vocabulary, WINDOW, environments, plain=plain)
    for _ in range(2 * WINDOW // (OBSERVATION_TOKENS + ACTION_TOKENS)):
        for way in ("graphs", "compact"):  # so that all that will be recorded has been
            steps[way]()
    floor = acting(size, gpu, environments, OBSERVATION_TOKENS, ACTION_TOKENS).step_ms
    found = []
    for way, seconds in interleaved(steps, rounds).items():
        median = 1e3 * statistics.median(seconds)
        rate, p99 = environments / median * 1e3, 1e3 * quantile(seconds, 0.99)
        found.append(Timing(size, environments, way, median, p99, rate, floor, floor / median))
    return found, steps


def kernels_of(step: Callable[[], object], calls: int = 5) -> list[tuple[str, float, float]]:
    """Name, number and milliseconds of the kernels of a timestep, those that take most first."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(calls):
            step()
        torch.cuda.synchronize()
    events = sorted(seen.key_averages(), key=lambda e: -e.self_device_time_total)
    return [(e.key[:80], e.count / calls, e.self_device_time_total / 1e3 / calls) for e in events]


def largest_difference(model: PreTrainedModel, environments: int = 2) -> tuple[float, float]:
    """Of logits to those by the model's own code, both on the GPU; and their spread."""
    vocabulary = GeneralistProcessor.default().vocabulary
    decoders = [Decoder(model, environments, WINDOW, plain=plain) for plain in (False, True)]
    slots, legal = range(environments), (0, vocabulary.size)
    for decoder in decoders:
        for slot in slots:
            decoder.reset(slot, [1] * (1 + slot))
    largest, spread = 0.0, 1.0
    torch.manual_seed(0)
    for _ in range(60):
        chunks = torch.randint(0, vocabulary.size, (environments, 24)).tolist()
        own, other = (
            decoder.logits(decoder.feed(slots, chunks, [0] * environments), legal)
            for decoder in decoders
        )
        largest = max(largest, float((own - other).abs().max()))
        spread = float(other.std())
    return largest, spread


def main(arguments: list[str] | None = None) -> None:
    """Measure each size with each number of environments and print tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_acting", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", action="append", choices=list_specs("sizes"), help="default 79m")
    parser.add_argument("--environments", action="append", type=int, help="default 1, 16, 256")
    parser.add_argument("--rounds", type=int, default=60, help="timesteps of each way")
    parser.add_argument("--profile", action="store_true", help="list the kernels of a timestep")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as JSON")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("this needs a GPU, and PyTorch sees none")
    console, gpu, timings = screen(), this_gpu(), []
    console.print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}: "
        f"{gpu.bandwidth / 1e12:.2f} TB/s, {gpu.flops / 1e12:.0f} TFLOP/s in bf16"
    )
    for size in given.size or ["79m"]:
        model = model_of(size)
        largest, spread = largest_difference(model)
        console.print(f"{size} in float32: logits within {largest:.2g}, of spread {spread:.2g}")
        model.to(torch.bfloat16)
        for environments in given.environments or [1, 16, 256]:
            # The others take too long for more than one.
            ways = ["graphs", "compact", *(["plain", "generate"] if environments == 1 else [])]
            found, steps = measure(size, model, environments, ways, given.rounds, gpu)
            timings += found
            if given.profile:
                rows = kernels_of(steps["graphs"])[:16]
                print_table(console, f"{size} x {environments}", ["kernel", "number", "ms"], rows)
            del steps
            torch.cuda.empty_cache()
    columns = "model", "environments", "way", "median ms", "p99 ms", "steps/s", "floor ms", "share"
    table = [list(asdict(each).values()) for each in timings]
    print_table(console, "A timestep of all environments", columns, table)
    facts = {"gpu": torch.cuda.get_device_name(), "rates": asdict(gpu)}
    write_json(given.json, {**facts, "timings": [asdict(each) for each in timings]})


if __name__ == "__main__":
    main()
