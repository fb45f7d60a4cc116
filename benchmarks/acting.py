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

generate and loop start from half a window and are cut back to it when the window is full
(`DynamicCache.crop`), so that their contexts are as long as the decoder's on average. The cut is
the cheapest there is and leaves the oldest half, which no agent would want: acting costs them more
than is shown here. Recompute has three quarters of a window, which is that average.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from rich.table import Table
from transformers import DynamicCache, PreTrainedModel

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

OBSERVATION_TOKENS, ACTION_TOKENS = 18, 6
HEADER_TOKENS = 8
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


class Observations:
    """Endless random observation tokens, the same for the same seed."""

    def __init__(self, vocabulary: Vocabulary, seed: int = 0) -> None:
        self.bins = (vocabulary["continuous"].start, vocabulary["continuous"].stop)
        self._separator = vocabulary.special("separator")
        self._random = np.random.default_rng(seed)

    def header(self) -> list[int]:
        """The ids of a header."""
        return self._random.integers(*self.bins, HEADER_TOKENS).tolist()

    def next(self) -> list[int]:
        """The ids of the next observation, with its separator."""
        tokens = self._random.integers(*self.bins, OBSERVATION_TOKENS - 1).tolist()
        return [*tokens, self._separator]


def decoder_step(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    window: int,
    environments: int = 1,
    plain: bool = False,
) -> Callable[[], object]:
    """A timestep of `Decoder` after its window has filled once."""
    source = Observations(vocabulary)
    decoder = Decoder(model, environments, window, plain=plain)
    slots = range(environments)
    choices = [[Choice(interval=source.bins)] * ACTION_TOKENS] * environments
    for slot in slots:
        decoder.reset(slot, source.header())

    def step() -> None:
        decoder.act(slots, [source.next() for _ in slots], choices)

    for _ in range(window // (OBSERVATION_TOKENS + ACTION_TOKENS) + 1):
        step()
    return step


def compact_step(
    model: PreTrainedModel, vocabulary: Vocabulary, window: int, environments: int = 1
) -> Callable[[], object]:
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
    slots = range(environments)
    choices = [[Choice(interval=source.bins)] * ACTION_TOKENS] * environments
    chunk = [vocabulary.special("separator")] * ACTION_TOKENS
    for slot in slots:
        decoder.reset(slot, [vocabulary.special("begin")])

    @torch.inference_mode()
    def step() -> None:
        ids = torch.tensor([source.next()[:-1] for _ in slots], device=model.device)
        given = embedders.vectors(seen.name, ids)
        numbers = torch.arange(queries, device=model.device)
        asked = embedders.vectors(QUERIES, numbers[None])[0]
        vectors = torch.cat([given, asked.expand(len(given), -1, -1)], dim=1)
        decoder.act_at_once(slots, chunk, vectors, choices)

    for _ in range(steps + 1):
        step()
    return step


class CachedPeer:
    """What `generate` and `loop` share: a `DynamicCache` kept between half a window and all."""

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary, window: int) -> None:
        self.model, self.window = model, window
        self.source = Observations(vocabulary)
        self.cache = DynamicCache(config=model.config)
        self.half = window // 2
        rng = np.random.default_rng(1)
        self.tokens = rng.integers(*self.source.bins, self.half).tolist()
        with torch.inference_mode():
            self.model(self.tensor(self.tokens), past_key_values=self.cache, use_cache=True)

    def tensor(self, tokens: list[int]) -> torch.Tensor:
        """(1, n) ids where the model is."""
        return torch.tensor([tokens], device=self.model.device)

    def begin(self) -> list[int]:
        """Make room for a timestep; the last action token, not yet fed, and its observation."""
        if len(self.tokens) + OBSERVATION_TOKENS + ACTION_TOKENS > self.window:
            self.cache.crop(self.half - self.cache.get_seq_length())  # by a negative number
            self.tokens = self.tokens[: self.half]
        waiting = self.tokens[self.cache.get_seq_length() :]
        observation = self.source.next()
        self.tokens += observation
        return waiting + observation


class GeneratePeer(CachedPeer):
    """A timestep is one call of `generate` that goes on from the cache."""

    def step(self) -> None:
        """Take a timestep."""
        self.begin()
        ids = self.tensor(self.tokens)
        out = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=self.cache,
            max_new_tokens=ACTION_TOKENS,
            min_new_tokens=ACTION_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        self.tokens = out[0].tolist()


class LoopPeer(CachedPeer):
    """A timestep is a loop over forward passes that fill the cache."""

    @torch.inference_mode()
    def step(self) -> None:
        """Take a timestep."""
        new = self.begin()
        for _ in range(ACTION_TOKENS):
            out = self.model(self.tensor(new), past_key_values=self.cache, logits_to_keep=1)
            new = [int(out.logits[0, -1].argmax())]
            self.tokens += new


class CropPeer(LoopPeer):
    """A loop whose cache slides: as much of the window as leaves room is kept."""

    def begin(self) -> list[int]:
        """As `CachedPeer.begin`."""
        kept = self.window - OBSERVATION_TOKENS - ACTION_TOKENS
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, -kept:], layer.values[:, :, -kept:]
        new = [*self.tokens[-1:], *self.source.next()]
        self.tokens += new[1:]
        return new


def recompute_step(
    model: PreTrainedModel, vocabulary: Vocabulary, window: int
) -> Callable[[], object]:
    """A timestep by a pass over the whole context for each action token."""
    source = Observations(vocabulary)
    rng = np.random.default_rng(1)
    context = rng.integers(*source.bins, window * 3 // 4).tolist()

    @torch.inference_mode()
    def step() -> None:
        tokens = context + source.next()
        for _ in range(ACTION_TOKENS):
            logits = model(torch.tensor([tokens]), use_cache=False).logits
            tokens.append(int(logits[0, -1].argmax()))

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


def p99_over_median(step: Callable[[], object], window: int) -> float:
    """Of the time of a timestep by itself, while the window turns over eight times."""
    count = 8 * window // 2 // (OBSERVATION_TOKENS + ACTION_TOKENS)
    values = interleaved({"alone": step}, count)["alone"]
    return quantile(values, 0.99) / statistics.median(values)


def measure(
    size: str, window: int, rounds: int, batch: int, dtype: torch.dtype
) -> tuple[list[Timing], dict]:
    """Time all subjects at one size of model, on as many threads as torch has."""
    vocabulary = GeneralistProcessor.default().vocabulary
    model = build_model(SIZES[size], vocabulary, window).eval().to(dtype)
    together = f"decoder x {batch}"
    steps = {"decoder": decoder_step(model, vocabulary, window)}
    steps["compact"] = compact_step(model, vocabulary, window)
    steps["generate"] = GeneratePeer(model, vocabulary, window).step
    steps["loop"] = LoopPeer(model, vocabulary, window).step
    steps["crop"] = CropPeer(model, vocabulary, window).step
    steps["recompute"] = recompute_step(model, vocabulary, window)
    seconds = interleaved(
        {name: step for name, step in steps.items() if name != "recompute"}, rounds
    )
    # The slow ones get fewer rounds, in turns with the decoder too.
    steps[together] = decoder_step(model, vocabulary, window, batch)
    compact_together = f"compact x {batch}"
    steps[compact_together] = compact_step(model, vocabulary, window, batch)
    beside: dict[str, float] = {}
    peers = (("recompute", "decoder", 15), (together, "decoder", 4))
    for name, alone, share in (*peers, (compact_together, "compact", 4)):
        pair = {each: steps[each] for each in (alone, name)}
        found = interleaved(pair, max(2, rounds // share))
        seconds[name] = found[name]
        beside[name] = statistics.median(found[name]) / statistics.median(found[alone])
    timings = [
        Timing(
            name,
            batch if name in (together, compact_together) else 1,
            1e3 * statistics.median(values),
            1e3 * min(values),
            1e3 * quantile(values, 0.99),
        )
        for name, values in seconds.items()
    ]
    median = {each.subject: each.median_ms for each in timings}
    parameters = sum(p.numel() for p in model.base_model.layers.parameters())
    body_bytes = parameters * dtype.itemsize
    bandwidth = matrix_vector_bandwidth(body_bytes)
    difference, spread = difference_to_full_pass(model, vocabulary, window)
    facts = {
        "size": size,
        "dtype": str(dtype).removeprefix("torch."),
        "body_parameters": parameters,
        "times_generate": median["generate"] / median["decoder"],
        "times_loop": median["loop"] / median["decoder"],
        "times_crop": median["crop"] / median["decoder"],
        "times_recompute": beside["recompute"],
        "batch_gain": batch / beside[together],
        "compact_times_generate": median["generate"] / median["compact"],
        "compact_times_decoder": median["decoder"] / median["compact"],
        "compact_batch_gain": batch / beside[compact_together],
        "p99_over_median": p99_over_median(steps["decoder"], window),
        # Each pass reads every weight of the body once; the head's rows are left out.
        "bandwidth_share": ACTION_TOKENS * body_bytes / (median["decoder"] / 1e3) / bandwidth,
        "largest_logit_difference": difference,
        "logit_spread": spread,
    }
    return timings, facts


def main(arguments: list[str] | None = None) -> None:
    """Measure each size and print tables."""
    parser = timing_parser("acting", __doc__, SIZES, rounds=120)
    parser.add_argument("--batch", type=int, default=8, help="environments side by side")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    console, result = screen(), []
    for size in given.size or ["3M"]:
        dtype = getattr(torch, given.dtype)
        timings, facts = measure(size, given.window, given.rounds, given.batch, dtype)
        table = Table("subject", "median ms", "least ms", "p99 ms", "environment steps/s")
        for each in timings:
            rate = each.environments / each.median_ms * 1e3
            row = (each.median_ms, each.least_ms, each.p99_ms, rate)
            table.add_row(each.subject, *(f"{value:.4g}" for value in row))
        console.print(f"{size}, {given.window} tokens, {given.threads} thread(s)", table)
        print_facts(console, facts)
        result.append({"facts": facts, "timings": [asdict(each) for each in timings]})
    write_json(given.json, {"threads": given.threads, "sizes": result})


if __name__ == "__main__":
    main()
