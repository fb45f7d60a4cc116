"""How long an agent takes for one timestep, beside what one would otherwise write.

All subjects hold the same weights (random ones: time does not depend on what was learned), see
random observations, and choose the likeliest id; one environment's timestep is 18 observation
tokens and 6 action tokens, as of a small robot. They take turns within one run.

    python -m benchmarks.acting --size 3M --size 79M

decoder: `generalist.decoding.Decoder`, its window turning over as it goes on without end.
compact: the same in the compact form: the observation in one position, all action tokens at once,
    as many timesteps in its context as the decoder has.
generate: Hugging Face `generate()` with the cache it filled so far (and one call a timestep).
loop: a loop over the model's own forward pass and a `DynamicCache`, every token fed alone after
    the observation.
crop: the same, but from a full window the oldest tokens' keys are dropped at every timestep, as
    JAT does. What is left was computed from what was dropped: no full pass gives the same.
recompute: the whole context anew for every action token, as policies do that keep no cache.
llama.cpp: the same weights as a GGUF file, every action token fed alone as in loop; its caches
    have the dtype of all others (benchmarks/llama.py says how to install it).
llama.cpp f16: the same as llama.cpp does by itself, with float16 caches and flash attention.

generate, loop and llama.cpp start from half a window and are cut back to it when the window is
full, so that their contexts are as long as the decoder's on average. The cut is the cheapest there
is and leaves the oldest half, which no agent would want: acting costs them more than is shown here.
Recompute has three quarters of a window, which is that average.

With `--batch 8` some also act in eight environments side by side. Their contexts are copies of one,
and go on differently. "gain" is how many times the environment steps of one environment they take.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

import torch
from rich.table import Table
from transformers import PreTrainedModel

from benchmarks.acting_peers import (
    ACTION_TOKENS,
    OBSERVATION_TOKENS,
    CropPeer,
    GeneratePeer,
    LlamaPeer,
    LoopPeer,
    Observations,
    Step,
    recompute_step,
)
from benchmarks.llama import INSTALL, LlamaCpp, installed
from benchmarks.measure import (
    interleaved,
    matrix_vector_bandwidth,
    print_facts,
    quantile,
    screen,
    timing_parser,
    write_json,
)
from generalist.decoding.decoder import Decoder
from generalist.decoding.sampling import Choice
from generalist.modeling.build import build_model
from generalist.modeling.embedders import Embedders
from generalist.modeling.recipe import ModelRecipe
from generalist.tokenization.compact import QUERIES, CompactForm, Run, Signature
from generalist.tokenization.processor import GeneralistProcessor
from generalist.vocabulary import Vocabulary

SIZES = {
    "1M": ModelRecipe(architecture="qwen3", hidden_size=128, layers=4, heads=2),
    "3M": ModelRecipe(hidden_size=256, intermediate_size=1024, layers=3, heads=4),
    "79M": ModelRecipe(hidden_size=768, intermediate_size=3072, layers=8, heads=12),
}


@dataclass
class Timing:
    """Milliseconds of a timestep of all environments of one subject."""

    subject: str
    environments: int
    median_ms: float
    least_ms: float
    p99_ms: float
    gain: float  # environment steps, times those of one environment in turns with it


def decoder_step(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    window: int,
    environments: int = 1,
    plain: bool = False,
) -> Step:
    """A timestep of `Decoder` after its window has filled once."""
    source = Observations(vocabulary)
    decoder = Decoder(model, environments, window, plain=plain)
    choices = [Choice(interval=source.bins)] * ACTION_TOKENS

    def step(slots: range = range(environments)) -> None:
        decoder.act(slots, [source.next() for _ in slots], [choices] * len(slots))

    decoder.reset(0, source.header())
    for _ in range(window // (OBSERVATION_TOKENS + ACTION_TOKENS) + 1):
        step(range(1))
    copy_first(decoder)
    return step


def copy_first(decoder: Decoder) -> None:
    """Put what the first slot of a decoder holds into all others."""
    others = range(1, len(decoder))
    decoder.fork([0] * len(others), others, younger=True)


def compact_step(
    model: PreTrainedModel, vocabulary: Vocabulary, window: int, environments: int = 1
) -> Step:
    """A timestep in the compact form, the embedder's work included."""
    source = Observations(vocabulary)
    start, stop = source.bins
    seen = Signature("observation", (Run("bins", OBSERVATION_TOKENS - 1, start, stop - start),))
    queries = ACTION_TOKENS - 1
    form = CompactForm(positions=1, width=32, signatures=(seen,), queries=queries)
    with torch.random.fork_rng(devices=[]):
        embedders = Embedders(form, model.config.hidden_size).to(model.device, model.dtype)
    steps = window // (OBSERVATION_TOKENS + ACTION_TOKENS)
    decoder = Decoder(model, environments, window, body_tokens=steps * ACTION_TOKENS)
    choices = [Choice(interval=source.bins)] * ACTION_TOKENS
    chunk = [vocabulary.special("separator")] * ACTION_TOKENS

    @torch.inference_mode()
    def step(slots: range = range(environments)) -> None:
        ids = torch.tensor([source.next()[:-1] for _ in slots], device=model.device)
        given = embedders.vectors(seen.name, ids)
        numbers = torch.arange(queries, device=model.device)
        asked = embedders.vectors(QUERIES, numbers[None])[0]
        vectors = torch.cat([given, asked.expand(len(given), -1, -1)], dim=1)
        decoder.act_at_once(slots, chunk, vectors, [choices] * len(slots))

    decoder.reset(0, [vocabulary.special("begin")])
    for _ in range(steps + 1):
        step(range(1))
    copy_first(decoder)
    return step


def difference_to_full_pass(
    model: PreTrainedModel, vocabulary: Vocabulary, window: int
) -> tuple[float, float]:
    """Largest difference of the decoder's logits to a full pass over the same context.

    Over two windows' worth of timesteps. Returns it with the standard deviation of the logits.
    """
    source = Observations(vocabulary)
    decoder = Decoder(model, 1, window)
    decoder.reset(0, source.header())
    largest, spread = 0.0, 1.0
    for number in range(2 * window // (OBSERVATION_TOKENS + ACTION_TOKENS)):
        hidden = decoder.feed([0], [source.next()], [ACTION_TOKENS])
        for position in range(ACTION_TOKENS):
            hidden = decoder.advance([0]) if position else hidden
            if number % 8 == 7:
                with torch.inference_mode():
                    context = torch.from_numpy(decoder.context(0))[None]
                    full = model(context, use_cache=False, logits_to_keep=1).logits[0, -1]
                own = decoder.logits(hidden, (0, vocabulary.size))[0]
                largest = max(largest, float((own - full).abs().max()))
                spread = float(full.std())
            decoder.choose([0], hidden, [Choice(interval=source.bins, ordinal=True)])
    return largest, spread


def p99_over_median(step: Step, window: int) -> float:
    """Of the time of a timestep by itself, while the window turns over eight times."""
    count = 8 * window // 2 // (OBSERVATION_TOKENS + ACTION_TOKENS)
    values = interleaved({"alone": step}, count)["alone"]
    return quantile(values, 0.99) / statistics.median(values)


def many(
    model: PreTrainedModel,
    llama: LlamaCpp | None,
    vocabulary: Vocabulary,
    window: int,
    environments: int,
) -> dict[str, Step]:
    """A timestep of each of those that act in many environments side by side."""
    given = vocabulary, window, environments
    steps = {"decoder": decoder_step(model, *given), "compact": compact_step(model, *given)}
    steps["generate"] = GeneratePeer(model, *given).step
    if llama is not None:
        steps["llama.cpp"] = LlamaPeer(llama, *given).step
        steps["llama.cpp f16"] = LlamaPeer(llama, *given, half=True).step
    return steps


def timing(name: str, environments: int, seconds: list[float], gain: float = 1.0) -> Timing:
    """What the seconds of a subject's timesteps say."""
    median, least, p99 = statistics.median(seconds), min(seconds), quantile(seconds, 0.99)
    return Timing(name, environments, 1e3 * median, 1e3 * least, 1e3 * p99, gain)


def measure(
    size: str, window: int, rounds: int, batches: list[int], dtype: torch.dtype, checks: bool
) -> tuple[list[Timing], dict]:
    """Time all subjects at one size of model, on as many threads as torch has."""
    vocabulary = GeneralistProcessor.default().vocabulary
    model = build_model(SIZES[size], vocabulary, window).eval().to(dtype)
    llama = LlamaCpp(model) if installed() else None
    alone = many(model, llama, vocabulary, window, 1)
    others = {
        "loop": LoopPeer(model, vocabulary, window).step,
        "crop": CropPeer(model, vocabulary, window).step,
    }
    found = interleaved({**alone, **others}, rounds)
    timings = [timing(name, 1, seconds) for name, seconds in found.items()]
    median = {each.subject: each.median_ms for each in timings}
    # The slow ones get fewer rounds, in turns with the quick ones too.
    slow = {"decoder": alone["decoder"], "recompute": recompute_step(model, vocabulary, window)}
    found = interleaved(slow, max(2, rounds // 15))
    timings.append(timing("recompute", 1, found["recompute"]))
    times_recompute = timings[-1].median_ms / (1e3 * statistics.median(found["decoder"]))
    for batch in batches:
        together = many(model, llama, vocabulary, window, batch)
        steps = alone | {f"{name} x {batch}": step for name, step in together.items()}
        found = interleaved(steps, max(2, rounds // 4))
        for name in together:
            one, all_of_them = found[name], found[f"{name} x {batch}"]
            gain = batch * statistics.median(one) / statistics.median(all_of_them)
            timings.append(timing(f"{name} x {batch}", batch, all_of_them, gain))
        del together, steps  # gigabytes of caches
    parameters = sum(p.numel() for p in model.base_model.layers.parameters())
    body_bytes = parameters * dtype.itemsize
    bandwidth = matrix_vector_bandwidth(body_bytes)
    facts = {
        "size": size,
        "dtype": str(dtype).removeprefix("torch."),
        "body_parameters": parameters,
        "times_generate": median["generate"] / median["decoder"],
        "times_loop": median["loop"] / median["decoder"],
        "times_crop": median["crop"] / median["decoder"],
        "times_recompute": times_recompute,
        "compact_times_generate": median["generate"] / median["compact"],
        "compact_times_decoder": median["decoder"] / median["compact"],
        # Each pass reads every weight of the body once; the head's rows are left out.
        "bandwidth_share": ACTION_TOKENS * body_bytes / (median["decoder"] / 1e3) / bandwidth,
    }
    if llama is not None:
        facts["times_llama"] = median["llama.cpp"] / median["decoder"]
        facts["times_llama_f16"] = median["llama.cpp f16"] / median["decoder"]
        facts["compact_times_llama"] = median["llama.cpp"] / median["compact"]
        facts["compact_times_llama_f16"] = median["llama.cpp f16"] / median["compact"]
        peer, half = (LlamaPeer(llama, vocabulary, window, half=half) for half in (False, True))
        peer.step()
        half.step()
        facts["llama_logit_difference"] = peer.difference(model)
        facts["llama_f16_logit_difference"] = half.difference(model)
    if checks:
        facts["p99_over_median"] = p99_over_median(alone["decoder"], window)
        difference, spread = difference_to_full_pass(model, vocabulary, window)
        facts |= {"largest_logit_difference": difference, "logit_spread": spread}
    return timings, facts


def main(arguments: list[str] | None = None) -> None:
    """Measure each size and print tables."""
    parser = timing_parser("acting", __doc__, SIZES, rounds=120)
    parser.add_argument("--batch", type=int, action="append", help="environments; default 8")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--no-checks",
        action="store_true",
        help="leave out what takes longest: the tail over eight windows, logits by full passes",
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    console, result = screen(), []
    if not installed():
        console.print(f"llama.cpp is left out, because it is not installed: {INSTALL}")
    for size in given.size or ["3M"]:
        dtype, batches = getattr(torch, given.dtype), given.batch or [8]
        timings, facts = measure(
            size, given.window, given.rounds, batches, dtype, not given.no_checks
        )
        table = Table("subject", "median ms", "least ms", "p99 ms", "environment steps/s", "gain")
        for each in timings:
            rate = each.environments / each.median_ms * 1e3
            row = (each.median_ms, each.least_ms, each.p99_ms, rate, each.gain)
            table.add_row(each.subject, *(f"{value:.4g}" for value in row))
        console.print(f"{size}, {given.window} tokens, {given.threads} thread(s)", table)
        print_facts(console, facts)
        result.append({"facts": facts, "timings": [asdict(each) for each in timings]})
    write_json(given.json, {"threads": given.threads, "sizes": result})


if __name__ == "__main__":
    main()
