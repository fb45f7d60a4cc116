"""How fast values become tokens, beside the barest numpy or torch that does the same.

    python -m benchmarks.tokenizing

Codecs: an episode of `--steps` steps encoded at once, with 24 numbers, the 64 squares of a board or
a BabyAI view of 7x7 cells a step. Each peer gives the same codes (checked) but looks for no
mistakes:
    mu-law, uniform: `np.digitize` by the edges of the bins, a binary search.
    discrete: `astype`. grid: the channels by their place values, a product with a vector.

Frames: the frame tokenizer on frames of three games, played at random. Its peer is the three large
matrix products of its encoder, for every patch and on floats: without the conversion from bytes,
the search for what has changed, the background's part and the quantiser. Codes are checked against
those of each frame alone.

Episodes: `GeneralistProcessor.encode` of a whole episode acted at random, checked against its steps
encoded one by one.

Legend: N = steps or frames, K = tokens of a step, S = tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import linear

from benchmarks.measure import (
    Rate,
    interleaved,
    print_facts,
    print_rates,
    rates,
    screen,
    timing_parser,
    write_json,
)
from generalist import envs
from generalist.episode import Episode, tree_map
from generalist.experts import random_episode
from generalist.tokenization.codec import Codec
from generalist.tokenization.continuous import ContinuousCodec, inverse_mu_law
from generalist.tokenization.discrete import DiscreteCodec
from generalist.tokenization.frames import FrameTokenizer, to_patches
from generalist.tokenization.grid import GridCodec
from generalist.tokenization.processor import GeneralistProcessor

NUMBERS = 24  # as of a walking robot
BOARD, PIECES = (8, 8), 13
VIEW, CELL = (7, 7), (11, 6, 3)  # BabyAI's, with values of object, colour and state
GAMES = ("atari/Pong", "atari/Freeway", "atari/Breakout")
EPISODES = ("gym/Pendulum-v1", "dmc/cartpole-swingup", "babyai/GoToLocal", "atari/Pong")
ALONE = 16  # steps of an episode, and frames, that are encoded one by one to check the rest

Found = tuple[list[Rate], dict[str, float]]


@dataclass
class Case:
    """A codec, values for it, and its peer on the same values."""

    codec: Codec
    values: np.ndarray  # (N, *shape)
    peer: Callable[[], np.ndarray]  # to (N, K) codes


def cases(bins: int, steps: int, seed: int = 0) -> dict[str, Case]:
    """A case for each codec, on `steps` steps of random values."""
    rng = np.random.default_rng(seed)
    edges = np.linspace(-1, 1, bins + 1)[1:-1]  # those between bins: what lies outside is clipped
    squashed = inverse_mu_law(edges)
    free = rng.normal(0, 3, (steps, NUMBERS)).astype(np.float32)
    bounded = rng.uniform(-1, 1, (steps, NUMBERS)).astype(np.float32)
    board = rng.integers(0, PIECES, (steps, *BOARD), np.int8)
    view = rng.integers(0, CELL, (steps, *VIEW, len(CELL)), np.uint8)
    places = np.array([CELL[1] * CELL[2], CELL[2], 1])
    unknown, low, high = (None,) * NUMBERS, (-1.0,) * NUMBERS, (1.0,) * NUMBERS
    squares = board[0].size
    return {
        "mu-law": Case(
            ContinuousCodec((NUMBERS,), "float32", unknown, unknown, bins),
            free,
            lambda: np.digitize(free, squashed),
        ),
        "uniform": Case(
            ContinuousCodec((NUMBERS,), "float32", low, high, bins),
            bounded,
            lambda: np.digitize(bounded, edges),
        ),
        "discrete": Case(
            DiscreteCodec(BOARD, "int8", (0,) * squares, (PIECES,) * squares),
            board,
            lambda: board.reshape(steps, squares).astype(np.int64),
        ),
        "grid": Case(
            GridCodec((*VIEW, len(CELL)), "uint8", (0,) * len(CELL), CELL),
            view,
            lambda: (view @ places).reshape(steps, -1),
        ),
    }


def agreement(name: str, codes: np.ndarray, expected: np.ndarray) -> float:
    """The share of equal codes; raises RuntimeError where they are not the same but for rounding.

    A number at the edge of two bins may be rounded into either, and so may a latent of a patch.
    """
    share = float((codes == expected).mean())
    if codes.shape != expected.shape or share < 0.999:
        raise RuntimeError(f"{name}: only {share:.2%} of the codes are right; its times are void.")
    return share


def measure_codecs(processor: GeneralistProcessor, steps: int, rounds: int) -> Found:
    """Million tokens a second of each codec and of its peer."""
    found: list[Rate] = []
    facts: dict[str, float] = {}
    for name, case in cases(processor.vocabulary["continuous"].size, steps).items():
        encode = partial(case.codec.encode, case.values, processor.toolbox)
        facts[f"{name}, same codes"] = agreement(name, encode(), case.peer())
        peer = f"{name}, peer"
        seconds = interleaved({name: encode, peer: case.peer}, rounds)
        rate = rates(seconds, steps * case.codec.tokens / 1e6)
        facts[f"{name}, times its peer"] = rate[name].per_second / rate[peer].per_second
        found += rate.values()
    return found, facts


def play(task: str, steps: int, seed: int = 0) -> Episode:
    """An episode of random actions, cut after `steps` steps."""
    env = envs.make(task)
    episode = random_episode(env, task, seed, max_steps=steps)
    env.close()
    return episode


def frames_of(game: str, count: int) -> np.ndarray:
    """(count, 84, 84, 3) uint8 of random play, of as many episodes as it takes."""
    frames = np.zeros((0, 84, 84, 3), np.uint8)
    seed = 0
    while len(frames) < count:
        more = play(game, count - len(frames), seed).observations
        frames, seed = np.concatenate([frames, more]), seed + 1
    return frames


def products_call(tokenizer: FrameTokenizer, frames: np.ndarray) -> Callable[[], torch.Tensor]:
    """The encoder's three large matrix products on every patch of the frames, given as floats."""
    codec = tokenizer.codec
    patches = torch.from_numpy(to_patches(frames, tokenizer.config.patch_size)).flatten(0, 1)
    values = patches.float() / 255
    weights = [codec.residual_in.weight, codec.encoder[1].weight, codec.latents_out.weight]

    @torch.inference_mode()
    def call() -> torch.Tensor:
        hidden = values
        for weight in weights:
            hidden = linear(hidden, weight)
        return hidden

    return call


def measure_frames(processor: GeneralistProcessor, count: int, rounds: int) -> Found:
    """Frames a second of the frame tokenizer and of bare products, game by game."""
    tokenizer = processor.frames
    assert tokenizer is not None  # the shipped processor has one
    found: list[Rate] = []
    facts: dict[str, float] = {}
    for game in GAMES:
        frames = frames_of(game, count)
        encode = partial(tokenizer.encode, frames, game)
        codes = encode()
        some = slice(None, None, max(1, count // ALONE))
        alone = [tokenizer.encode(frame[None], game)[0] for frame in frames[some]]
        facts[f"{game}, same codes"] = agreement(game, codes[some], np.stack(alone))
        facts[f"{game}, codes that are not still"] = float((codes != tokenizer.still_code).mean())
        peer = f"{game}, peer"
        products = products_call(tokenizer, frames)
        subjects: dict[str, Callable[[], object]] = {game: encode, peer: products}
        rate = rates(interleaved(subjects, rounds), count)
        facts[f"{game}, times its peer"] = rate[game].per_second / rate[peer].per_second
        found += rate.values()
    return found, facts


def measure_episodes(processor: GeneralistProcessor, steps: int, rounds: int) -> Found:
    """Million tokens a second of whole episodes, each of its task's own length up to `steps`."""
    subjects: dict[str, partial[np.ndarray]] = {}
    tokens: dict[str, float] = {}
    facts: dict[str, float] = {}
    for task in EPISODES:
        env = envs.make(task)
        layout = processor.layout(env.observation_space, env.action_space, task=task)
        env.close()
        episode = play(task, steps)
        subjects[task] = partial(processor.encode, episode, layout)
        ids = subjects[task]()
        some = range(0, episode.steps, max(1, episode.steps // ALONE))
        alone = [processor.encode(step_of(episode, step), layout) for step in some]
        timesteps = ids.reshape(-1, layout.tokens_per_timestep)  # (T, S)
        facts[f"{task}, same ids"] = agreement(task, timesteps[some], np.stack(alone))
        facts[f"{task}, steps"] = episode.steps
        tokens[task] = len(ids) / 1e6
    seconds = interleaved(subjects, rounds)
    found = [rates({task: seconds[task]}, tokens[task])[task] for task in EPISODES]
    return found, facts


def step_of(episode: Episode, step: int) -> Episode:
    """An episode of one step of another."""
    only = slice(step, step + 1)
    observation = tree_map(lambda leaf: leaf[only], episode.observations)
    action = tree_map(lambda leaf: leaf[only], episode.actions)
    return Episode(episode.task, observation, action, episode.rewards[only], False, True)


def main(arguments: list[str] | None = None) -> None:
    """Measure codecs, frames and episodes, and print tables."""
    parser = timing_parser("tokenizing", __doc__, None, rounds=50)
    parser.add_argument("--steps", type=int, default=1000, help="of an episode, at most")
    parser.add_argument("--frames", type=int, default=256, help="encoded at once")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    processor, console = GeneralistProcessor.default(), screen()
    result: dict[str, Any] = {"threads": given.threads}
    for title, unit, (found, facts) in (
        ("codecs", "million tokens/s", measure_codecs(processor, given.steps, given.rounds)),
        ("frames", "frames/s", measure_frames(processor, given.frames, given.rounds)),
        ("episodes", "million tokens/s", measure_episodes(processor, given.steps, given.rounds)),
    ):
        print_rates(console, f"{title}, {given.threads} thread(s)", found, unit)
        print_facts(console, facts)
        result[title] = {"unit": unit, "facts": facts, "rates": [asdict(each) for each in found]}
    write_json(given.json, result)


if __name__ == "__main__":
    main()
