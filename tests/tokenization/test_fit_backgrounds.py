"""Backgrounds of games that the frame tokenizer does not know, on such a game."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

import generalist
from generalist.experts.collect import random_episode
from generalist.tokenization import fit_backgrounds as fitting
from generalist.tokenization.background import Background
from generalist.tokenization.fit_backgrounds import (
    fit_backgrounds,
    has_fitted,
    keep_backgrounds,
    random_play,
    still_picture,
)
from generalist.tokenization.image import ImageCodec
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor

TASK = "atari/Seaquest"  # none of the games whose backgrounds the tokenizer has
SPACES = spaces.Box(0, 255, (84, 84, 3), np.uint8), spaces.Discrete(18)


@pytest.fixture(scope="module")
def processor() -> GeneralistProcessor:
    return GeneralistProcessor.default()


@pytest.fixture(scope="module")
def fitted(processor: GeneralistProcessor) -> Layout:
    return processor.layout(*SPACES, task=TASK, play=partial(generalist.make, TASK))


def image(layout: Layout) -> ImageCodec:
    codec = layout.parts_of("observation")[0].codec
    assert isinstance(codec, ImageCodec)
    return codec


def never() -> None:
    raise AssertionError("a known background is not fitted")


def test_most_codes_of_an_unknown_game_are_still_and_frames_come_back_better(
    processor: GeneralistProcessor, fitted: Layout
) -> None:
    env = generalist.make(TASK)
    frames = random_episode(env, TASK, seed=3, max_steps=200).observations[::4]
    env.close()
    named = processor.layout(*SPACES, task=TASK)
    assert processor.frames is not None
    still, error = {}, {}
    for name, layout in (("black", named), ("fitted", fitted)):
        codes = image(layout).encode(frames, processor.toolbox)
        seen = image(layout).decode(codes, processor.toolbox)
        still[name] = (codes == processor.frames.still_code).mean()
        error[name] = np.square(seen.astype(float) - frames).mean()
    assert still["fitted"] > 0.4 and still["fitted"] > 2 * still["black"]
    assert error["fitted"] < error["black"] / 2


def test_a_fitted_background_is_part_of_what_a_layout_is(
    processor: GeneralistProcessor, fitted: Layout
) -> None:
    read = Layout.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert read == fitted and hash(read) == hash(fitted) and has_fitted(fitted)
    named = processor.layout(*SPACES, task=TASK)
    assert named != fitted and not has_fitted(named)


def test_what_is_known_is_not_fitted(processor: GeneralistProcessor) -> None:
    known = processor.layout(*SPACES, task="atari/Pong", play=never)  # type: ignore[arg-type]
    assert known == processor.layout(*SPACES, task="atari/Pong")
    states = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)
    processor.layout(*states, task="gym/New-v0", play=never)  # type: ignore[arg-type]


def test_worlds_whose_camera_moves_have_no_background() -> None:
    worlds = GeneralistProcessor.default("worlds")
    layout = worlds.layout(*SPACES, task=TASK, play=never)  # type: ignore[arg-type]
    assert not has_fitted(layout)


def test_what_is_continued_keeps_its_background(
    processor: GeneralistProcessor, fitted: Layout
) -> None:
    """Shards of version 0.1 name a background that the tokenizer does not have: black."""
    black = processor.layout(*SPACES, task=TASK)
    for before in (black, fitted):
        new = processor.layout(*SPACES, task=TASK, play=never, before=before)  # type: ignore[arg-type]
        assert new == before
    assert keep_backgrounds(black, fitted) == fitted


def test_each_part_of_frames_has_a_background_of_its_own(processor: GeneralistProcessor) -> None:
    eyes = spaces.Box(0, 255, (40, 50, 3), np.uint8), spaces.Box(0, 255, (2, 64, 32), np.uint8)
    seen = spaces.Dict(left=eyes[0], right=eyes[1], speed=spaces.Box(-1, 1))
    layout = processor.layout(seen, spaces.Discrete(2), task="own/Eyes")
    rng = np.random.default_rng(0)
    still = {name: rng.integers(0, 256, seen[name].shape, np.uint8) for name in ("left", "right")}
    tree = {name: np.repeat(each[None], 5, axis=0) for name, each in still.items()}
    tree["left"][2] = 0  # one of five: the median does not have it
    tree["speed"] = np.zeros((5, 1), np.float32)
    assert processor.frames is not None
    new = fit_backgrounds(layout, [tree], processor.frames)
    left, right, speed = new.parts_of("observation")
    assert speed == layout.parts_of("observation")[2]
    for part, codes in ((left, 36), (right, 72)):
        assert part.codec.tokens == codes
    coded = left.encode(tree, processor.toolbox) - left.start
    assert (coded[[0, 1, 3, 4]] == processor.frames.still_code).all()
    assert (coded[2] != processor.frames.still_code).any()


def test_no_frame_seen_leaves_the_layout_as_it_is(processor: GeneralistProcessor) -> None:
    layout = processor.layout(*SPACES, task=TASK)
    assert processor.frames is not None
    assert fit_backgrounds(layout, [], processor.frames) == layout


def test_short_episodes_end_the_play(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MOST_EPISODES", 3)
    monkeypatch.setattr(fitting, "EPISODE_STEPS", 5)
    played = list(random_play(partial(generalist.make, "gym/CartPole-v1"), "gym/CartPole-v1"))
    assert [len(each) for each in played] == [2, 2, 2]  # of five steps, the first and the fifth
    assert len({each[0].tobytes() for each in played}) == 3


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_median_is_a_colour_that_was_seen(count: int, seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)
    found = still_picture(frames)
    assert found.dtype == np.uint8 and (frames == found).any(axis=0).all()
    np.testing.assert_array_equal(Background.of(found).picture, found)
