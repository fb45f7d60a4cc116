"""The programs in benchmarks/: that they run, and that what they report is what it is called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import acting, imitation, training
from generalist.modeling.build import build_model
from generalist.tokenization.processor import GeneralistProcessor
from tests.conftest import TinyRun


def test_imitation_reports_every_task_of_every_folder(tiny_run: TinyRun, tmp_path: Path, capsys):
    out = tmp_path / "out.json"
    arguments = [str(tiny_run.checkpoint), str(tiny_run.data), str(tiny_run.data)]
    imitation.main([*arguments, "--rows", "8", "--json", str(out)])
    found = json.loads(out.read_text())
    assert [each["task"] for each in found] == [*tiny_run.tasks] * 2
    assert found[:2] == found[2:], "the rows of a folder are not the same twice"
    buttons, numbers = found[:2]
    assert buttons["r2"] is None and 0 <= buttons["accuracy"] <= 1
    assert numbers["accuracy"] is None and numbers["r2"] < 1
    assert "gym/Pendulum-v1" in capsys.readouterr().out


def test_r2_is_one_for_the_labels_and_zero_for_their_mean():
    label = np.random.default_rng(0).normal(size=500)
    exact = imitation._prediction(Path(), "a/b", [np.stack([label, label], 1)], None)
    constant = np.full_like(label, label.mean())
    mean = imitation._prediction(Path(), "a/b", [np.stack([constant, label], 1)], None)
    assert exact.r2 == pytest.approx(1) and mean.r2 == pytest.approx(0)
    assert exact.labels == 500


def test_the_acting_benchmark_compares_equal_things(tmp_path: Path):
    out = tmp_path / "out.json"
    arguments = ["--size", "1M", "--window", "96", "--rounds", "8", "--batch", "2"]
    acting.main([*arguments, "--json", str(out)])
    (found,) = json.loads(out.read_text())["sizes"]
    subjects = {each["subject"]: each for each in found["timings"]}
    assert set(subjects) == {"decoder", "decoder x 2", "generate", "loop", "recompute"}
    assert found["facts"]["largest_logit_difference"] < 1e-4 * found["facts"]["logit_spread"]
    decoder, peer = subjects["decoder"], subjects["generate"]
    assert 0 < decoder["least_ms"] <= decoder["median_ms"] <= decoder["p99_ms"]
    assert found["facts"]["times_generate"] == pytest.approx(
        peer["median_ms"] / decoder["median_ms"]
    )


def test_the_cached_peers_choose_the_same_tokens():
    vocabulary = GeneralistProcessor.default().vocabulary
    model = build_model(acting.SIZES["1M"], vocabulary, 96).eval()
    peers = [Peer(model, vocabulary, 96) for Peer in (acting.GeneratePeer, acting.LoopPeer)]
    for _ in range(6):  # cut back to half a window on the way
        for peer in peers:
            peer.step()
        assert peers[0].tokens == peers[1].tokens


def test_the_training_benchmark_compares_equal_losses(tiny_run: TinyRun, tmp_path: Path):
    out = tmp_path / "out.json"
    arguments = ["--size", "1M", "--window", "192", "--rows", "2", "--rounds", "2"]
    training.main([str(tiny_run.data), *arguments, "--json", str(out)])
    (found,) = json.loads(out.read_text())["sizes"]
    losses = {each["subject"]: each["loss"] for each in found["timings"]}
    assert losses == pytest.approx(dict.fromkeys(("segments", "rows", "labels"), losses["labels"]))
