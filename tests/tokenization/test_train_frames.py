"""The frame tokenizer's training: patches, metric, determinism, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generalist.envs import get_task
from generalist.errors import UsageError
from generalist.specs import find_spec, load_yaml
from generalist.tokenization.fit_frames import (
    blur_metric,
    different_rows,
    fit_codec,
    patch_data,
    uniformity,
)
from generalist.tokenization.frames import FrameConfig, FrameTokenizer
from generalist.tokenization.train_frames import (
    FrameTokenizerSpec,
    collect_frames,
    fit_frame_tokenizer,
    train_frame_tokenizer,
)


def moving_dots(count: int = 400, seed: int = 0) -> np.ndarray:
    """(count, 84, 84, 3) frames: a bright 2x2 dot at a random place before a striped wall."""
    rng = np.random.default_rng(seed)
    frames = np.zeros((count, 84, 84, 3), np.uint8)
    frames[:, ::4] = (40, 60, 80)
    for frame, (row, column) in zip(frames, rng.integers(0, 83, (count, 2)), strict=True):
        frame[row : row + 2, column : column + 2] = 255
    return frames


def test_different_rows_are_counted():
    rows = np.random.default_rng(0).integers(0, 256, (50, 588), dtype=np.uint8)
    index, counts = different_rows(np.concatenate([rows, rows[:10], rows[:10]]))
    assert len(index) == 50
    assert sorted(counts.tolist()) == [1] * 40 + [3] * 10


def test_patches_are_those_that_changed_and_every_background_is_theirs():
    frames = moving_dots(100)
    background = np.median(frames, axis=0).astype(np.uint8)
    data = patch_data([(frames, background, 1.0)], 14)
    assert data.weights.sum() == pytest.approx(1)
    assert data.patches.shape[1] == data.backgrounds.shape[1] == 588
    behind = data.backgrounds[data.background_index]
    known = behind.any(axis=1)
    assert (data.patches[known] != behind[known]).any(axis=1).all()
    assert known.sum() > 50


def test_a_near_miss_costs_less_than_a_loss():
    metric = blur_metric(14)
    dot = np.zeros((14, 14))
    dot[6:8, 6:8] = 1.0
    cost = {
        shift: np.square(metric @ (dot - np.roll(dot, shift, axis=1)).ravel()).sum()
        for shift in (1, 3, 6)
    }
    lost = np.square(metric @ dot.ravel()).sum()
    assert cost[1] < lost < cost[6]
    assert cost[1] < cost[3] < cost[6]


def test_uniformity_knows_uniform_points():
    torch.manual_seed(0)
    uniform = uniformity(torch.rand(2000, 4) * 2 - 1)
    assert uniform < 0.01 < 0.1 < uniformity(torch.zeros(2000, 4))


def test_training_repeats_itself_and_learns():
    frames = {"my/Dots": moving_dots()}
    first, second = (fit_frame_tokenizer(frames, steps=60, seed=1) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert fit_frame_tokenizer(frames, steps=60, seed=2).fingerprint != first.fingerprint

    def error(tokenizer: FrameTokenizer) -> float:
        seen = moving_dots(50, seed=9)
        decoded = tokenizer.decode(tokenizer.encode(seen, "my/Dots"), "my/Dots")
        moved = (seen != tokenizer.backgrounds["my/Dots"]).any(axis=-1)
        return np.square(decoded[moved].astype(float) - seen[moved]).mean()

    trained = fit_frame_tokenizer(frames, steps=600, seed=1)
    assert error(trained) < 0.7 * error(fit_frame_tokenizer(frames, steps=1, seed=1))


def test_the_trained_codec_is_the_shipped_one_bit_for_bit(tmp_path):
    """Weights are rounded to the precision of the file when training ends, not when it is saved."""
    tokenizer = fit_frame_tokenizer({"my/Dots": moving_dots()}, steps=20)
    tokenizer.save_pretrained(tmp_path)
    seen = moving_dots(30, seed=5)
    again = FrameTokenizer.from_pretrained(tmp_path)
    assert np.array_equal(tokenizer.encode(seen, "my/Dots"), again.encode(seen, "my/Dots"))


def test_minutes_end_the_training():
    frames = moving_dots(50)
    data = patch_data([(frames, np.median(frames, axis=0).astype(np.uint8), 1.0)], 14)
    fit_codec(data, FrameConfig(), steps=10**9, minutes=0.02, progress=False)


def test_frames_are_collected_from_real_play():
    frames = collect_frames("atari/Freeway", 16)
    assert frames.shape == (16, 84, 84, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames, collect_frames("atari/Freeway", 16))


def test_a_planner_is_not_waited_for(monkeypatch):
    """Twenty steps a second, and a search for every one of thousands of frames."""
    assert get_task("atari/Boxing").default_expert == "planner"
    monkeypatch.setattr("generalist.experts.registry.get_expert", lambda name: pytest.fail(name))
    frames = collect_frames("atari/Boxing", 16)
    assert frames.shape == (16, 84, 84, 3) and (frames != frames[0]).any()


def test_frames_of_a_task_that_is_not_registered_are_taken():
    """What it shows is known only once it is made."""
    assert get_task("gym/CarRacing-v3").frames is None
    assert collect_frames("gym/CarRacing-v3", 8).shape == (8, 96, 96, 3)
    with pytest.raises(UsageError, match="gym/Taxi-v4 shows Discrete"):
        collect_frames("gym/Taxi-v4", 8)


def test_the_whole_command(tmp_path):
    folder = train_frame_tokenizer(
        tmp_path, ["atari/Freeway"], frames_per_task=40, steps=3, progress=False
    )
    tokenizer = FrameTokenizer.from_pretrained(folder)
    assert list(tokenizer.backgrounds) == ["atari/Freeway"]
    card = (folder / "README.md").read_text()
    assert tokenizer.fingerprint in card and "| atari/Freeway | 40 |" in card
    assert (folder / "Freeway.png").read_bytes().startswith(b"\x89PNG")


def test_a_task_without_frames_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no frames"):
        train_frame_tokenizer(tmp_path, ["gym/CartPole-v1"], progress=False)
    assert not list(tmp_path.iterdir())


def test_the_shipped_spec_is_valid_and_names_what_the_weights_know():
    folder = find_spec("tokenizers", "frames")
    spec = load_yaml(folder / "spec.yaml", FrameTokenizerSpec)
    assert set(spec.tasks) == set(FrameTokenizer.from_pretrained(folder).backgrounds)
