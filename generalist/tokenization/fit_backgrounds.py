"""Fitting the still backgrounds of a task that the frame tokenizer does not know.

1. The task is played at random for some hundred steps, on seeds that no data and no score has.
2. The background is the median of each pixel over what was seen, as for the tokenizer's own games.

Legend: T = steps of an episode, F = frames, S = pixels a side of the frames that are coded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from generalist.episode import Tree, tree_get, tree_map
from generalist.seeds import BACKGROUND_SEED
from generalist.tokenization.background import Background
from generalist.tokenization.image import ImageCodec
from generalist.tokenization.layout import Layout, Part

if TYPE_CHECKING:
    import gymnasium

    from generalist.tokenization.frames import FrameTokenizer

PLAYED_STEPS = 900
"""Steps of random play in all. Twice as many change little."""
EPISODE_STEPS = 300
"""An episode is cut there, so that several are seen. With 200 Gopher's ground is not dug up yet."""
EVERY = 4
"""One frame of so many counts."""
MOST_EPISODES = 50
"""Where episodes are short, fewer steps are played."""


def fit_backgrounds(layout: Layout, observations: Iterable[Tree], frames: FrameTokenizer) -> Layout:
    """The layout with a background for each part of frames that has none.

    A part has one in itself, or by a name that the tokenizer knows. For a tokenizer without any,
    such as one of worlds whose camera moves, none is fitted.

    Args:
        layout: of the task.
        observations: batched observations of each episode, (T, ...). They are gone through once,
            and not at all where no part lacks a background.
        frames: codes the frames.
    """
    if not frames.backgrounds:
        return layout
    parts, size = list(layout.parts), frames.config.frame_size
    seen: dict[int, list[np.ndarray]] = {
        number: [] for number, part in enumerate(parts) if _lacks(part, frames)
    }
    for tree in observations if seen else ():
        for number, taken in seen.items():
            taken += _pictures(parts[number], tree, size)
    for number, taken in seen.items():
        if taken:
            background = Background.of(still_picture(np.concatenate(taken)))
            parts[number] = _with_background(parts[number], background)
    return Layout(tuple(parts))


def has_fitted(layout: Layout) -> bool:
    """Whether a background was fitted for a part of the layout."""
    codecs = [part.codec for part in layout.parts]
    return any(
        isinstance(codec, ImageCodec) and isinstance(codec.background, Background)
        for codec in codecs
    )


def keep_backgrounds(layout: Layout, before: Layout) -> Layout:
    """The layout with the backgrounds that its parts of frames have in `before`.

    Args:
        layout: of a task.
        before: of the same task, of shards that are to be continued.
    """
    known = {
        (part.role, part.path): part.codec.background
        for part in before.parts
        if isinstance(part.codec, ImageCodec)
    }
    return Layout(
        tuple(
            _with_background(part, known[part.role, part.path])
            if isinstance(part.codec, ImageCodec) and (part.role, part.path) in known
            else part
            for part in layout.parts
        )
    )


def random_play(make: Callable[[], gymnasium.Env], task: str) -> Iterator[Tree]:
    """Batched observations of episodes of random play, every fourth; the same at every call.

    Args:
        make: makes an environment of the task, which is closed at the end.
        task: its name, for errors.
    """
    from generalist.experts.collect import random_episode

    env, played = make(), 0
    try:
        for seed in range(BACKGROUND_SEED, BACKGROUND_SEED + MOST_EPISODES):
            episode = random_episode(env, task, seed, max_steps=EPISODE_STEPS)
            yield tree_map(lambda leaf: leaf[::EVERY], episode.observations)
            if (played := played + len(episode.rewards)) >= PLAYED_STEPS:
                return
    finally:
        env.close()


def still_picture(pictures: np.ndarray) -> np.ndarray:
    """(F, S, S, 3) uint8 to (S, S, 3), the median of each pixel.

    Of an even number of frames the first is left out: else a median could be a colour that lies
    between two and never occurs.
    """
    odd = pictures[1 - len(pictures) % 2 :] if len(pictures) > 1 else pictures
    return np.partition(odd, len(odd) // 2, axis=0)[len(odd) // 2]


def _lacks(part: Part, frames: FrameTokenizer) -> bool:
    codec = part.codec
    if not isinstance(codec, ImageCodec) or isinstance(codec.background, Background):
        return False
    return codec.background not in frames.backgrounds


def _pictures(part: Part, tree: Tree, size: int) -> list[np.ndarray]:
    """The frames of a part in observations, in bounded pieces of (F, size, size, 3) uint8."""
    from generalist.tokenization.frames import resize_frames

    assert isinstance(part.codec, ImageCodec)
    values = tree_get(tree, part.path)
    return [resize_frames(frames, size) for frames in part.codec.frames_of(values)]


def _with_background(part: Part, background: Background | str | None) -> Part:
    assert isinstance(part.codec, ImageCodec)
    return replace(part, codec=replace(part.codec, background=background))
