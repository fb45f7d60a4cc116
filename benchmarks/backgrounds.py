"""What a fitted background is worth in games that the frame tokenizer does not know.

    python -m benchmarks.backgrounds atari/Seaquest atari/Gopher gym/CarRacing-v3 doom/basic

Frames of random play on seeds that the background was not fitted to are coded against black, as
before there were fitted backgrounds, and against the fitted one. A code is still where its patch
equals the background. PSNR is of whole frames as their codes decode.

    python -m benchmarks.backgrounds --memory atari/Seaquest atari/Gopher

asks instead how much of an Atari game's state the codes tell: how well ridge regression on the
codes of a frame predicts the bytes of the console's memory, in episodes it was not fitted to.

Legend: F = frames, K = codes of a frame, B = bytes of memory.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np

from benchmarks.measure import print_table, screen, write_json
from generalist.envs import make
from generalist.episode import tree_get
from generalist.experts.collect import random_episode
from generalist.experts.policies import RandomPolicy
from generalist.seeds import EVALUATION_SEED
from generalist.session import play
from generalist.tokenization.frames import resize_frames
from generalist.tokenization.image import ImageCodec
from generalist.tokenization.layout import Layout, Part
from generalist.tokenization.processor import GeneralistProcessor

EPISODES = 4
STEPS = 600
EVERY = 6
MEMORY_EPISODES, MEMORY_STEPS = 10, 500
RIDGE = 0.1


@dataclass(frozen=True)
class Row:
    """One task and one background.

    Attributes:
        task: its name.
        background: `black` or `fitted`.
        still: share of the codes that say nothing has changed.
        codes: how many different ones there are.
        psnr: of the decoded frames, in dB.
        seconds: what it took to make the layout.
    """

    task: str
    background: str
    still: float
    codes: int
    psnr: float
    seconds: float


@dataclass(frozen=True)
class MemoryRow:
    """What the codes of one game against one background tell of its memory.

    Attributes:
        task: its name.
        background: `black` or `fitted`.
        explained: mean over bytes of the explained share of variance, at least 0 each.
        told: how many bytes have more than half of their variance explained.
        bytes: how many change.
    """

    task: str
    background: str
    explained: float
    told: int
    bytes: int


def measure(processor: GeneralistProcessor, task: str) -> list[Row]:
    """Both rows of a task."""
    env = make(task)
    spaces = env.observation_space, env.action_space
    episodes = [
        random_episode(env, task, EVALUATION_SEED + number, max_steps=STEPS).observations
        for number in range(EPISODES)
    ]
    env.close()
    rows = []
    for background, play_in in (("black", None), ("fitted", partial(make, task))):
        began = time.perf_counter()
        layout = processor.layout(*spaces, task=task, play=play_in)
        seconds = time.perf_counter() - began
        part = _frames_of(layout)
        values = np.concatenate([tree_get(each, part.path)[::EVERY] for each in episodes])
        rows.append(Row(task, background, *_kept(processor, part, values), seconds))
    return rows


def measure_memory(processor: GeneralistProcessor, task: str) -> list[MemoryRow]:
    """Both rows of an Atari game."""
    env = make(task)
    spaces = env.observation_space, env.action_space
    shown = [_with_memory(env, task, EVALUATION_SEED + number) for number in range(MEMORY_EPISODES)]
    env.close()
    frames, memory = (np.concatenate(each) for each in zip(*shown, strict=True))
    fitted_to = sum(len(seen) for seen, _ in shown[: round(0.7 * MEMORY_EPISODES)])
    rows = []
    for background, play_in in (("black", None), ("fitted", partial(make, task))):
        part = _frames_of(processor.layout(*spaces, task=task, play=play_in))
        share = explained(part.codec.encode(frames, processor.toolbox), memory, fitted_to)
        mean, told = float(share.clip(0).mean()), int((share > 0.5).sum())
        rows.append(MemoryRow(task, background, mean, told, len(share)))
    return rows


def _with_memory(env: gymnasium.Env, task: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames of an episode of random play, and the (F, B) float64 memory at each."""
    memory: list[np.ndarray] = []
    (trace,) = play(
        RandomPolicy(env.action_space),
        [env],
        [seed],
        task=task,
        keep_steps=True,
        max_steps=MEMORY_STEPS,
        watch=lambda _: memory.append(np.array(env.unwrapped.ram(), float)),
    )
    seen = np.asarray(trace.to_episode({}).observations)
    return seen[::2], np.stack(memory)[: len(seen) : 2]


def explained(codes: np.ndarray, memory: np.ndarray, fitted_to: int) -> np.ndarray:
    """Share of the variance of each byte that a linear function of one-hot codes explains.

    Args:
        codes: (F, K).
        memory: (F, B).
        fitted_to: the first so many frames are fitted to, the others are predicted.

    Returns:
        (bytes that change in both parts,), at most 1; below 0 where the mean would do better.
    """
    changing = (memory[:fitted_to].std(axis=0) > 0) & (memory[fitted_to:].std(axis=0) > 0)
    memory = memory[:, changing]
    mean, spread = memory[:fitted_to].mean(axis=0), memory[:fitted_to].std(axis=0)
    wanted = (memory - mean) / spread
    # The dual form: the product of two frames is the share of codes that they have in common.
    common = np.mean([code[:, None] == code[:fitted_to] for code in codes.T], axis=0)
    weights = np.linalg.solve(common[:fitted_to] + RIDGE * np.eye(fitted_to), wanted[:fitted_to])
    error = common[fitted_to:] @ weights - wanted[fitted_to:]
    return 1 - np.square(error).mean(axis=0) / wanted[fitted_to:].var(axis=0)


def _frames_of(layout: Layout) -> Part:
    """The first part of frames."""
    return next(part for part in layout.parts if isinstance(part.codec, ImageCodec))


def _kept(
    processor: GeneralistProcessor, part: Part, values: np.ndarray
) -> tuple[float, int, float]:
    """Share of still codes, different codes, and PSNR in dB, of frames as they are coded."""
    assert isinstance(part.codec, ImageCodec) and processor.frames is not None
    size = processor.frames.config.frame_size
    true = np.concatenate([resize_frames(each, size) for each in part.codec.frames_of(values)])
    codes = part.codec.encode(values, processor.toolbox).reshape(len(true), -1)
    seen = processor.frames.decode(codes, part.codec.background)
    error = float(np.square(seen.astype(np.float32) - true).mean())
    still = float((codes == processor.frames.still_code).mean())
    return still, len(np.unique(codes)), 10 * np.log10(255**2 / max(error, 1e-9))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the tasks and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tasks", nargs="+", help="tasks with frames")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--memory", action="store_true", help="what codes tell of the memory")
    given = parser.parse_args(arguments)
    processor = GeneralistProcessor.default()
    if given.memory:
        told = [row for task in given.tasks for row in measure_memory(processor, task)]
        names = "task", "background", "explained", "told", "bytes"
        print_table(screen(), "What codes tell of the memory", names, map(astuple, told))
        write_json(given.json, {"rows": [asdict(row) for row in told]})
        return
    rows = [row for task in given.tasks for row in measure(processor, task)]
    columns = "task", "background", "still", "codes", "PSNR (dB)", "seconds"
    print_table(screen(), "Codes of frames", columns, map(astuple, rows))
    write_json(given.json, {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
