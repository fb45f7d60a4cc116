"""The benchmarks for GPUs run where there is one, and say what they need where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_acting, gpu_training

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize(
    "run", [gpu_acting.main, lambda given: gpu_training.main(["data", *given])]
)
def test_without_a_gpu_they_say_so(run, capsys):
    with pytest.raises(SystemExit) as left:
        run([])
    assert left.value.code == 2 and "needs a GPU" in capsys.readouterr().err


@needs_gpu
def test_acting_is_timed_beside_other_ways(tmp_path: Path, capsys):
    out = tmp_path / "out.json"
    arguments = ["--size", "1m", "--environments", "1", "--rounds", "2", "--json", str(out)]
    gpu_acting.main(arguments)
    result = json.loads(out.read_text())
    ways = [each["way"] for each in result["timings"]]
    assert ways == ["graphs", "compact", "plain", "generate"]
    flat = [each for each in result["timings"] if each["way"] != "compact"]
    assert all(0 < each["share_of_floor"] < 1 for each in flat)  # the floor is the flat form's


@needs_gpu
def test_training_ways_compute_the_same_loss(tiny_run, tmp_path: Path):
    out = tmp_path / "out.json"
    arguments = ["--size", "1m", "--rows", "2", "--rounds", "1", "--json", str(out)]
    gpu_training.main([str(tiny_run.data), *arguments])
    losses = [each["loss"] for each in json.loads(out.read_text())["timings"]]
    assert losses == pytest.approx([losses[0]] * 4, rel=0.01)
