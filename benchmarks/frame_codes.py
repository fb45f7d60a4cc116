"""How a frame should stand in the sequence: 16, 36 or 64 codes, or Gato's embedded patches.

Of each game the same demonstrations are cloned by the same small transformer, for the same number
of floating-point operations (counted by torch over one training step, the embedding's own
included), and the clone plays whole games of seeds that were not shown:

    python -m benchmarks.frame_codes --tflops 40

The codes come from frame tokenizers trained here alike (the shipped one knows more games). More
codes a frame show more and leave fewer labels for the same training. Only counts decide, no clock,
so other work on the machine changes nothing but the time that is reported.

Shapes: T = steps of the demonstrations, N = samples of a batch, C = frames seen together, K = codes
or patches of a frame, A = actions.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.measure import print_table, screen, write_json
from benchmarks.patch_embedding import GRID, PATCH, PatchEmbedding
from generalist.envs import make
from generalist.experts.collect import collect_episode
from generalist.experts.registry import get_expert
from generalist.modeling.build import build_model
from generalist.modeling.recipe import ModelRecipe
from generalist.tokenization.frames import FrameConfig, FrameTokenizer, resize_frames
from generalist.tokenization.processor import GeneralistProcessor
from generalist.tokenization.train_frames import fit_frame_tokenizer
from generalist.training.optimizer import build_optimizers, set_learning_rate
from generalist.training.recipe import OptimizerRecipe

TOKENIZERS = {16: FrameConfig(84, 21), 36: FrameConfig(84, 14), 64: FrameConfig(88, 11)}
"""Codes a frame, and how it is cut (64 of them need 88 pixels a side)."""
MODEL = ModelRecipe(architecture="qwen3", heads=2, rope_theta=100)
BATCH = 64
LEARNING_RATE = 0.003
WARMUP_STEPS = 100
TEMPERATURE = 0.3
HELD_OUT = 0.1
TOKENIZER_FRAMES = 15_000
FIRST_PLAYED_SEED = 2_000_000


@dataclass(frozen=True)
class Game:
    """What is cloned: an expert, how many frames a decision needs, how much is shown and played."""

    task: str
    expert: str
    context: int
    episodes: int
    max_steps: int


GAMES = {
    "Freeway": Game("atari/Freeway", "cautious", 1, 30, 2_100),
    "Pong": Game("atari/Pong", "steady", 2, 20, 3_000),
}


@dataclass
class Shown:
    """Demonstrations end to end: frames (T, 84, 84, 3) uint8, labels (T,), each episode's start."""

    frames: np.ndarray
    labels: np.ndarray
    starts: np.ndarray
    """(T,) index at which the episode of each step begins."""
    held_out: int
    """Steps from here on are not trained on."""

    def seen(self, steps: np.ndarray, context: int) -> np.ndarray:
        """(N, C) indices of the frames seen at `steps` (N,); an episode's first one repeats."""
        back = steps[:, None] - np.arange(context)[::-1]
        return np.maximum(back, self.starts[steps, None])


@dataclass
class Result:
    """A clone: what it was trained on, how it predicts held-out labels, how it plays."""

    game: str
    frame: str
    labels: int
    seconds: float
    nats: float
    right: float
    mean: float
    least: float
    most: float


def demonstrate(game: Game) -> Shown:
    """Play the expert's episodes, disturbed in bursts as in the shipped datasets."""
    env = make(game.task)
    frames, labels, lengths = [], [], []
    for seed in tqdm(range(game.episodes), desc=f"show {game.task}"):
        episode = collect_episode(
            env,
            game.task,
            get_expert(game.task, game.expert),
            seed,
            noise=0.2,
            burst_steps=4,
            max_steps=game.max_steps,
        )
        frames.append(np.asarray(episode.observations))
        labels.append(np.asarray(episode.labels))
        lengths.append(len(labels[-1]))
    env.close()
    starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    kept = min(game.episodes - 1, round(game.episodes * (1 - HELD_OUT)))
    return Shown(np.concatenate(frames), np.concatenate(labels), starts, sum(lengths[:kept]))


class Clone(nn.Module):
    """A transformer that sees C frames and a separator, and says the logits of the actions."""

    def __init__(
        self, processor: GeneralistProcessor, tokenizer: FrameTokenizer | None, actions: int
    ) -> None:
        super().__init__()
        vocabulary = processor.vocabulary
        coordinates = None if tokenizer is None else tokenizer.code_coordinates
        self.model = build_model(MODEL, vocabulary, 192, code_coordinates=coordinates)
        self.patches = PatchEmbedding(MODEL.hidden_size) if tokenizer is None else None
        self._image = vocabulary["image"].start
        self._separator = vocabulary.special("separator")
        self._actions = slice(vocabulary["discrete"].start, vocabulary["discrete"].start + actions)

    def get_input_embeddings(self) -> nn.Module:
        """Of the transformer, as `build_optimizers` asks for it."""
        return self.model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The same for the head."""
        return self.model.get_output_embeddings()

    def forward(self, frames: Tensor) -> Tensor:
        """(N, C, K) codes, or (N, C, 96, 96, 3) uint8 frames -> (N, A) float32."""
        count = len(frames)
        table = self.get_input_embeddings()
        if self.patches is None:
            vectors = table(frames.flatten(1) + self._image)
        else:
            vectors = self.patches(frames.flatten(0, 1)).view(count, -1, MODEL.hidden_size)
        end = table(torch.full((count, 1), self._separator))
        hidden = self.model.get_decoder()(
            inputs_embeds=torch.cat([vectors, end], 1), use_cache=False
        ).last_hidden_state[:, -1]
        return F.linear(hidden, self.get_output_embeddings().weight[self._actions])


def train(
    clone: Clone, inputs: Tensor, shown: Shown, game: Game, tflops: float
) -> tuple[int, float]:
    """Clone for so many 10^12 operations; returns how many labels that took, and seconds."""
    rng = np.random.default_rng(0)
    optimizers = build_optimizers(clone, OptimizerRecipe(lr=LEARNING_RATE))
    labels = torch.from_numpy(shown.labels).long()

    def step(done: int, steps: int) -> None:
        at = rng.integers(shown.held_out, size=BATCH)
        warm = min(1.0, (done + 1) / WARMUP_STEPS)
        rate = LEARNING_RATE * warm * 0.5 * (1 + math.cos(math.pi * done / steps))
        set_learning_rate(optimizers, rate)
        loss = F.cross_entropy(clone(inputs[shown.seen(at, game.context)]), labels[at])
        loss.backward()
        nn.utils.clip_grad_norm_(clone.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    clone.train()
    with FlopCounterMode(display=False) as counter:
        step(0, 10**9)  # hardly moves a weight: the first of the warm-up
    steps = max(1, round(tflops * 1e12 / counter.get_total_flops()))
    started = time.perf_counter()
    for done in tqdm(range(steps), desc="clone", leave=False):
        step(done, steps)
    return steps * BATCH, time.perf_counter() - started


@torch.inference_mode()
def predict(clone: Clone, inputs: Tensor, shown: Shown, game: Game) -> tuple[float, float]:
    """Nats of a held-out label, and the share that the likeliest action gets right."""
    clone.eval()
    nats, right, count = 0.0, 0, 0
    for first in range(shown.held_out, len(shown.labels), 256):
        at = np.arange(first, min(first + 256, len(shown.labels)))
        logits = clone(inputs[shown.seen(at, game.context)])
        labels = torch.from_numpy(shown.labels[at]).long()
        nats += float(F.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(-1) == labels).sum())
        count += len(at)
    return nats / count, right / count


@torch.inference_mode()
def play(
    clone: Clone, represent: Callable[[np.ndarray], Tensor], game: Game, games: int
) -> list[float]:
    """Returns of whole games, side by side."""
    clone.eval()
    generator = torch.Generator().manual_seed(0)
    envs = [make(game.task) for _ in range(games)]
    frames = [env.reset(seed=FIRST_PLAYED_SEED + i)[0] for i, env in enumerate(envs)]
    seen = represent(np.stack(frames))[:, None].repeat_interleave(game.context, 1)
    returns, playing = np.zeros(games), list(range(games))
    with tqdm(desc="play", unit="step", leave=False) as bar:
        while playing:
            chances = (clone(seen[playing]) / TEMPERATURE).softmax(-1)
            actions = torch.multinomial(chances, 1, generator=generator)[:, 0].tolist()
            over = []
            for index, action in zip(playing, actions, strict=True):
                frames[index], reward, terminated, truncated, _ = envs[index].step(action)
                returns[index] += float(reward)
                over += [index] if terminated or truncated else []
            new = represent(np.stack([frames[index] for index in playing]))
            seen[playing] = torch.cat([seen[playing, 1:], new[:, None]], 1)
            playing = [index for index in playing if index not in over]
            bar.update()
    for env in envs:
        env.close()
    return returns.tolist()


def embed_for(
    game: Game, codes: int | None, shown: Shown, tokenizer_steps: int
) -> tuple[FrameTokenizer | None, Callable[[np.ndarray], Tensor]]:
    """A tokenizer of so many codes (None: patches), and what makes the clone's input of frames."""
    if codes is None:
        return None, lambda frames: torch.from_numpy(resize_frames(frames, GRID * PATCH))
    trained_on = {game.task: shown.frames[: min(shown.held_out, TOKENIZER_FRAMES)]}
    tokenizer = fit_frame_tokenizer(
        trained_on, steps=tokenizer_steps, progress=True, config=TOKENIZERS[codes]
    )
    return tokenizer, lambda frames: torch.from_numpy(tokenizer.encode(frames, game.task))


def ablate(game: Game, codes: list[int | None], args: argparse.Namespace) -> list[Result]:
    """Every way to show a frame of one game."""
    shown = demonstrate(game)
    processor = GeneralistProcessor.default()
    env = make(game.task)
    actions = int(env.action_space.n)
    env.close()
    found = []
    for each in codes:
        tokenizer, represent = embed_for(game, each, shown, args.tokenizer_steps)
        inputs = torch.cat(
            [represent(shown.frames[i : i + 500]) for i in range(0, len(shown.frames), 500)]
        )
        torch.manual_seed(0)
        clone = Clone(processor, tokenizer, actions)
        labels, seconds = train(clone, inputs, shown, game, args.tflops)
        nats, right = predict(clone, inputs, shown, game)
        returns = play(clone, represent, game, args.games)
        name = f"{GRID * GRID} patches" if each is None else f"{each} codes"
        found.append(
            Result(
                game.task, name, labels, seconds, nats, right,
                float(np.mean(returns)), min(returns), max(returns),
            )
        )  # fmt: skip
    return found


def main(arguments: list[str] | None = None) -> None:
    """Clone every game in every way and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frame_codes", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--game", choices=[*GAMES], action="append", help="repeatable; all")
    parser.add_argument(
        "--codes", type=int, choices=[*TOKENIZERS, 0], action="append", help="0: patches; all"
    )
    parser.add_argument("--tflops", type=float, default=40, help="10^12 operations a clone")
    parser.add_argument("--tokenizer-steps", type=int, default=4000)
    parser.add_argument("--episodes", type=int, help="shown of each game")
    parser.add_argument("--max-steps", type=int, help="of an episode shown")
    parser.add_argument("--games", type=int, default=5, help="played to the end by a clone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as JSON")
    given = parser.parse_args(arguments)
    if given.episodes is not None and given.episodes < 2:
        parser.error("one episode is held out: --episodes is at least 2")
    codes = [each or None for each in given.codes or [*TOKENIZERS, 0]]
    found = []
    for name in given.game or [*GAMES]:
        own = asdict(GAMES[name])
        own.update(
            {k: v for k in ("episodes", "max_steps") if (v := getattr(given, k)) is not None}
        )
        found += ablate(Game(**own), codes, given)
    columns = "game", "frame", "labels", "seconds", "nats", "right", "return", "least", "most"
    title = f"{given.tflops:g} x 10^12 operations a clone, {given.games} games"
    print_table(screen(), title, columns, [astuple(each) for each in found])
    write_json(given.json, {"tflops": given.tflops, "clones": [asdict(each) for each in found]})


if __name__ == "__main__":
    main()
