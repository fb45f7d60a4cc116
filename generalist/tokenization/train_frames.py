"""Training of the frame tokenizer: frames from play of every strength, then `fit_frames.py`.

`tokenizers/frames/spec.yaml` declares the tasks. Nothing is written before the end, so an
interruption costs the training and never a tokenizer that was there before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from generalist.errors import UsageError
from generalist.specs import find_spec, load_yaml

if TYPE_CHECKING:
    from generalist.tokenization.frames import FrameConfig, FrameTokenizer

SPEC_FILE = "spec.yaml"
NOISES = (0.02, 0.1, 0.4, 1.0)
"""Share of random actions in each quarter of a task's frames; the states of a clone lie between."""
BURST_STEPS = 4.0
EPISODE_STEPS = 3000
"""An episode is cut there, so that a quarter holds several."""


class FrameTokenizerSpec(BaseModel):
    """`tokenizers/frames/spec.yaml`."""

    model_config = ConfigDict(extra="forbid")

    tasks: dict[str, float] = Field(min_length=1)
    """Task names, each with its weight in the training."""
    moving_camera: bool = False
    """Whether the camera moves, so that nothing stands still: no task has a background."""
    patch_size: int = Field(14, ge=1)
    """Height and width in pixels of the patch that a code stands for; a divisor of 84."""
    frames_per_task: int = Field(12_000, ge=8)
    """Frames collected of each task."""
    steps: int = Field(4000, ge=1)
    """Training steps of 512 patches."""
    minutes: float | None = Field(None, gt=0)
    """Ends the training early after this time; the result then depends on the machine's speed."""
    seed: int = 0


def collect_frames(task: str, count: int, *, seed: int = 0, progress: bool = False) -> np.ndarray:
    """Play a task and keep what is seen.

    The expert plays, disturbed to the degrees of `NOISES`. Without an expert, or with a planner
    (some 20 steps a second), play is random.

    Args:
        task: Name of the task.
        count: Number of frames.
        seed: Of the first episode.
        progress: Show a bar on stderr.

    Returns:
        (count, H, W, 3) uint8 RGB frames in the order they were seen.

    Raises:
        UsageError: The task shows no such frames.
    """
    from tqdm import tqdm

    from generalist.envs import get_task
    from generalist.envs.frames import frame_axes, is_full_uint8
    from generalist.experts import demonstrate, policy_named

    entry = get_task(task)
    if entry.frames is False:
        raise UsageError(f"{task} has no frames: a frame tokenizer is trained on pixel tasks.")
    env = entry.make()
    shape: tuple[int, ...] = env.observation_space.shape or ()
    if not is_full_uint8(env.observation_space) or frame_axes(shape) != (0, 2) or shape[2] != 3:
        raise UsageError(
            f"{task} shows {env.observation_space}; a frame tokenizer is trained on uint8 RGB "
            "frames (height, width, 3)."
        )
    quick = entry.default_expert not in ("", "planner")
    player = policy_named(task, None if quick else "random", [env])
    taken: list[np.ndarray] = []
    with tqdm(total=count, desc=f"frames of {task}", disable=not progress, leave=False) as bar:
        for part, noise in enumerate(NOISES):
            wanted = count * (part + 1) // len(NOISES)
            while (missing := wanted - sum(map(len, taken))) > 0:
                episode = demonstrate(
                    player,
                    env,
                    task,
                    seed + len(taken),
                    noise=noise,
                    burst_steps=BURST_STEPS,
                    max_steps=min(missing, EPISODE_STEPS),
                )
                taken.append(np.asarray(episode.observations))
                bar.update(len(taken[-1]))
    env.close()
    return np.concatenate(taken)


def fit_frame_tokenizer(
    frames: Mapping[str, np.ndarray],
    weights: Mapping[str, float] | None = None,
    *,
    steps: int = 4000,
    minutes: float | None = None,
    seed: int = 0,
    progress: bool = False,
    config: FrameConfig | None = None,
    moving_camera: bool = False,
) -> FrameTokenizer:
    """Train a frame tokenizer.

    The per-pixel median of a task's frames becomes its background, unless the camera moves.

    Args:
        frames: (N, H, W, 3) uint8 of each task, in the order they were seen.
        weights: How much each task counts; 1 if not given.
        steps: Optimizer steps.
        minutes: Ends the training earlier.
        seed: Of all that is drawn.
        progress: Show a bar on stderr.
        config: Other sizes than the shipped ones.
        moving_camera: Whether nothing of a frame stands still; all tasks then count alike.
    """
    from generalist.tokenization.fit_frames import fit_codec, patch_data, scene_data
    from generalist.tokenization.frames import FrameConfig, FrameTokenizer, resize_frames

    config = config or FrameConfig()
    fitting: dict[str, Any] = {"steps": steps, "minutes": minutes, "seed": seed}
    if moving_camera:
        sized = np.concatenate([resize_frames(f, config.frame_size) for f in frames.values()])
        scenes = scene_data(sized, config.patch_size, seed=seed)
        return FrameTokenizer(fit_codec(scenes, config, progress=progress, **fitting), {})
    backgrounds, games = {}, []
    for name, taken in frames.items():
        sized = resize_frames(taken, config.frame_size)
        median = np.median(sized[:: max(1, len(sized) // 2000)], axis=0).astype(np.uint8)
        backgrounds[name] = median
        games.append((sized, median, 1.0 if weights is None else weights[name]))
    data = patch_data(games, config.patch_size, seed=seed)
    codec = fit_codec(data, config, progress=progress, **fitting)
    return FrameTokenizer(codec, backgrounds)


def train_frame_tokenizer(
    out_dir: str | Path,
    tasks: Sequence[str] | Mapping[str, float] | None = None,
    *,
    frames_per_task: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    progress: bool = True,
    steps: int | None = None,
    spec: str = "frames",
) -> Path:
    """Collect frames, train, and write the tokenizer and its card.

    The spec `tokenizers/SPEC/spec.yaml` gives what is not given here. The same seed gives the
    same tokenizer, unless `minutes` ends the training before its last step.

    Args:
        out_dir: Folder of the tokenizer.
        tasks: Names of tasks, or the weight of each.
        frames_per_task: Frames of a task of weight 1.
        minutes: Ends the training earlier.
        seed: Of play and training.
        progress: Show bars on stderr.
        steps: Optimizer steps.
        spec: Name of the folder of `tokenizers/` whose spec is taken.

    Returns:
        `out_dir`.
    """
    from generalist.tokenization.frames import FrameConfig
    from generalist.tokenization.frames_card import write_card

    known = load_yaml(find_spec("tokenizers", spec) / SPEC_FILE, FrameTokenizerSpec)
    if tasks is None:
        weights = known.tasks
    else:
        weights = dict(tasks) if isinstance(tasks, Mapping) else dict.fromkeys(tasks, 1.0)
    seed = known.seed if seed is None else seed
    count = known.frames_per_task if frames_per_task is None else frames_per_task
    frames = {
        # A task that counts for less also shows fewer frames; every task has seeds of its own.
        name: collect_frames(
            name, max(8, round(count * weight**0.5)), seed=seed + 1000 * i, progress=progress
        )
        for i, (name, weight) in enumerate(weights.items())
    }
    tokenizer = fit_frame_tokenizer(
        frames,
        weights,
        steps=known.steps if steps is None else steps,
        minutes=known.minutes if minutes is None else minutes,
        seed=seed,
        progress=progress,
        config=FrameConfig(patch_size=known.patch_size),
        moving_camera=known.moving_camera,
    )
    out_dir = Path(out_dir)
    tokenizer.save_pretrained(out_dir)
    # The card shows a stretch of play from every strength.
    write_card(
        tokenizer,
        {name: taken[:: max(1, len(taken) // 500)] for name, taken in frames.items()},
        out_dir,
    )
    return out_dir
