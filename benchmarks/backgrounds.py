"""What a fitted background is worth in games that the frame tokenizer does not know.

    python -m benchmarks.backgrounds atari/Seaquest atari/Gopher gym/CarRacing-v3 doom/basic

Frames of random play on seeds that the background was not fitted to are coded against black, as
before there were fitted backgrounds, and against the fitted one. A code is still where its patch
equals the background. PSNR is of whole frames as their codes decode.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import print_table, screen, write_json
from generalist.envs import make
from generalist.episode import tree_get
from generalist.experts.collect import random_episode
from generalist.seeds import EVALUATION_SEED
from generalist.tokenization.frames import resize_frames
from generalist.tokenization.image import ImageCodec
from generalist.tokenization.layout import Layout, Part
from generalist.tokenization.processor import GeneralistProcessor

EPISODES = 4
STEPS = 600
EVERY = 6


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
    for background, play in (("black", None), ("fitted", partial(make, task))):
        began = time.perf_counter()
        layout = processor.layout(*spaces, task=task, play=play)
        seconds = time.perf_counter() - began
        part = _frames_of(layout)
        values = np.concatenate([tree_get(each, part.path)[::EVERY] for each in episodes])
        rows.append(Row(task, background, *_kept(processor, part, values), seconds))
    return rows


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
    given = parser.parse_args(arguments)
    processor = GeneralistProcessor.default()
    rows = [row for task in given.tasks for row in measure(processor, task)]
    columns = "task", "background", "still", "codes", "PSNR (dB)", "seconds"
    print_table(screen(), "Codes of frames", columns, map(astuple, rows))
    write_json(given.json, {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
