"""The shipped frame tokenizer on real frames: exact where it promises, and the ball survives."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import generalist
from generalist.errors import GeneralistError
from generalist.experts import get_expert
from generalist.specs import find_spec
from generalist.tokenization.frames import FrameTokenizer, from_patches, to_patches

FRAMES = 300
SEED = 987_654


@pytest.fixture(scope="module")
def tokenizer() -> FrameTokenizer:
    return FrameTokenizer.from_pretrained(find_spec("tokenizers", "frames"))


def play(task: str, seed: int = SEED) -> np.ndarray:
    """(FRAMES, 84, 84, 3) frames of expert play with some random actions, on an unseen seed."""
    env, expert, rng = generalist.make(task), get_expert(task), np.random.default_rng(0)
    frame, _ = env.reset(seed=seed)
    expert.reset(env, seed)
    frames = []
    for _ in range(FRAMES):
        frames.append(frame)
        action = expert.label(frame, env)
        if rng.random() < 0.1:
            action = rng.integers(env.action_space.n)
        frame, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            frame, _ = env.reset()
            expert.reset(env, seed)
    env.close()
    return np.stack(frames)


@pytest.fixture(scope="module")
def pong() -> np.ndarray:
    return play("atari/Pong")


@pytest.fixture(scope="module")
def breakout() -> np.ndarray:
    return play("atari/Breakout")


def test_codes_have_the_promised_shape_and_range(tokenizer, pong):
    codes = tokenizer.encode(pong, "atari/Pong")
    assert codes.shape == (FRAMES, tokenizer.codes_per_frame) == (FRAMES, 36)
    assert codes.dtype == np.int64
    assert tokenizer.codebook_size == 1000
    assert 0 <= codes.min() and codes.max() < 1000
    assert len(np.unique(codes)) > 50, "the codebook has collapsed"


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 3),
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    seed=st.integers(0, 2**32 - 1),
    background=st.sampled_from([None, "atari/Pong", "gym/NobodyKnows-v0"]),
)
def test_any_frame_is_encoded_and_every_code_decodes(
    tokenizer, count, height, width, seed, background
):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    codes = tokenizer.encode(frames, background)
    assert codes.shape == (count, 36)
    assert ((codes >= 0) & (codes < 1000)).all()
    decoded = tokenizer.decode(rng.integers(0, 1000, (count, 36)), background)
    assert decoded.shape == (count, 84, 84, 3) and decoded.dtype == np.uint8


def test_unknown_background_is_no_background(tokenizer, pong):
    without = tokenizer.encode(pong[:20])
    assert np.array_equal(without, tokenizer.encode(pong[:20], "somebody/Else"))
    error = tokenizer.decode(without).astype(float) - pong[:20]
    black = pong[:20].astype(float)
    assert np.square(error).mean() < 0.1 * np.square(black).mean(), "worse than a poor likeness"


def test_grey_repeated_to_three_channels(tokenizer, pong):
    grey = np.repeat(pong.mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1)
    decoded = tokenizer.decode(tokenizer.encode(grey))
    error, black = (
        np.square(decoded.astype(float) - grey).mean(),
        np.square(grey.astype(float)).mean(),
    )
    assert error < 0.7 * black, "hues that training never showed are coarse, but no worse than this"


def test_codes_do_not_depend_on_the_company(tokenizer, pong):
    """One frame at a time (as when acting), in one batch, and in small chunks of patches."""
    together = tokenizer.encode(pong, "atari/Pong")
    alone = np.concatenate([tokenizer.encode(frame[None], "atari/Pong") for frame in pong[:60]])
    chunked = FrameTokenizer(tokenizer.codec, tokenizer.backgrounds, chunk_patches=7)
    assert np.array_equal(together[:60], alone)
    assert np.array_equal(together[:60], chunked.encode(pong[:60], "atari/Pong"))
    assert np.array_equal(together, tokenizer.encode(pong, "atari/Pong"))


def test_what_equals_the_background_is_still_and_exact(tokenizer):
    background = tokenizer.backgrounds["atari/Pong"][None]
    codes = tokenizer.encode(background, "atari/Pong")
    assert (codes == tokenizer.still_code).all()
    assert np.array_equal(tokenizer.decode(codes, "atari/Pong"), background)


def test_a_change_moves_the_code_of_its_own_patch_only(tokenizer):
    before = tokenizer.backgrounds["atari/Pong"][None]
    changed = before.copy()
    changed[:, 34:36, 34:35] = 236
    after = tokenizer.encode(changed, "atari/Pong")
    assert np.flatnonzero(after[0] != tokenizer.still_code).tolist() == [2 * 6 + 2]


def test_patches_round_trip():
    frames = np.random.default_rng(0).integers(0, 256, (3, 84, 84, 3), dtype=np.uint8)
    patches = to_patches(frames, 14)
    assert patches.shape == (3, 36, 588)
    assert np.array_equal(patches[1, 8].reshape(14, 14, 3), frames[1, 14:28, 28:42])
    assert np.array_equal(from_patches(patches, 14), frames)


def test_save_and_load_give_the_same_codes(tokenizer, pong, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = FrameTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    codes = tokenizer.encode(pong[:50], "atari/Pong")
    assert np.array_equal(codes, again.encode(pong[:50], "atari/Pong"))
    assert np.array_equal(tokenizer.decode(codes, "atari/Pong"), again.decode(codes, "atari/Pong"))


def field_change(frames: np.ndarray, background: np.ndarray, field: tuple[slice, slice]):
    """(N, h, w) brightness above the background inside the part of the field without paddles."""
    above = frames.astype(float) - background
    return above.mean(axis=-1)[:, field[0], field[1]]


@pytest.mark.parametrize(
    ("task", "field", "bright", "kept", "far"),
    [
        ("atari/Pong", (slice(15, 77), slice(13, 71)), 40, 0.95, 2.0),
        # The shipped weights lose one Breakout ball in sixteen, mostly beside bricks or paddle,
        # and a faint one may be outshone by noise: the README of the tokenizer says so.
        ("atari/Breakout", (slice(40, 73), slice(6, 78)), 15, 0.85, 30.0),
    ],
)
def test_the_ball_survives(tokenizer, task, field, bright, kept, far):
    # Six games: in Breakout the median error of one of them is anything from 0.7 to 3.6 pixels.
    frames = np.concatenate([play(task, seed) for seed in range(SEED, SEED + 6)])
    background = tokenizer.backgrounds[task]
    decoded = tokenizer.decode(tokenizer.encode(frames, task), task)
    true, seen = (field_change(f, background, field) for f in (frames, decoded))
    # In another palette, as before the first serve, all of the field differs from the background.
    usual = np.abs(true).mean(axis=(1, 2)) < 6
    with_ball = np.flatnonzero(usual & (true.max(axis=(1, 2)) > bright))
    assert len(with_ball) > 360, "the play shows too few balls to judge by"

    def centre(image: np.ndarray) -> np.ndarray:
        weight = np.where(image > 0.5 * image.max(), image, 0)
        return np.array(np.tensordot(np.indices(image.shape), weight, 2) / weight.sum())

    bright_there, errors = [], []
    for index in with_ball:
        row, column = np.round(centre(true[index])).astype(int)
        near = seen[index][max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        bright_there.append(near.max() > 0.1 * true[index].max())
        errors.append(np.abs(centre(seen[index]) - centre(true[index])).max())
    assert np.mean(bright_there) > kept, "the ball is lost"
    assert np.median(errors) < 1.5, "the ball is not where it was"
    assert np.percentile(errors, 90) < far, "the ball jumps"


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((84, 84, 3), np.uint8),
        np.zeros((1, 84, 84, 1), np.uint8),
        np.zeros((1, 84, 84, 3), np.float32),
    ],
)
def test_what_is_no_batch_of_frames_is_refused(tokenizer, frames):
    with pytest.raises(GeneralistError, match=r"\(N, height, width, 3\) uint8"):
        tokenizer.encode(frames)


def test_codes_outside_the_codebook_are_refused(tokenizer):
    with pytest.raises(GeneralistError, match=r"\[0, 1000\)"):
        tokenizer.decode(np.full((1, 36), 1000))
    with pytest.raises(GeneralistError, match=r"\(N, 36\)"):
        tokenizer.decode(np.zeros((1, 35), np.int64))


def test_missing_damaged_and_mixed_files_are_named(tokenizer, tmp_path):
    with pytest.raises(GeneralistError, match="is missing"):
        FrameTokenizer.from_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "fingerprint": "0" * 16}))
    with pytest.raises(GeneralistError, match="fingerprint"):
        FrameTokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "format": "other"}))
    with pytest.raises(GeneralistError, match="format"):
        FrameTokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(GeneralistError, match="damaged"):
        FrameTokenizer.from_pretrained(tmp_path)


def test_the_shipped_weights_are_small():
    folder = find_spec("tokenizers", "frames")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000


def test_tokenization_is_imported_without_torch():
    code = "import sys, generalist.tokenization; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
