"""`generalist dagger`: what the agent does is corrected, and training goes on with that."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from generalist.cli.main import main
from generalist.shards.reader import TaskData
from tests.conftest import TinyRun

TASK = "gym/CartPole-v1"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def data(tiny_run: TinyRun, tmp_path: Path) -> Path:
    shutil.copytree(tiny_run.data, tmp_path / "data")
    return tmp_path / "data"


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def test_rounds_are_played_once_and_training_goes_on_from_the_weights(
    tiny_run: TinyRun, data, tmp_path, capsys
):
    out = tmp_path / "dagger"
    command = [
        "dagger", TASK, "--checkpoint", str(tiny_run.checkpoint), "--data", str(data),
        "--out", str(out), "--episodes", "3", "--rounds", "2",
        "schedule.steps=2", "schedule.warmup_steps=1", "optimizer.lr=0.000001",
    ]  # fmt: skip
    before = len(TaskData(data / TASK))
    assert main(command) == 0
    rounds = [TaskData(out / "corrections" / f"round-{i}" / TASK) for i in (1, 2)]
    added = [record for each in rounds for record in each.records]
    assert len(added) == 6 and {record["source"] for record in added} == {"dagger"}
    assert len({record["seed"] for record in added}) == 6
    assert all(900_000 <= record["seed"] < 1_000_000 for record in added)
    assert sum(record["relabelled"] for record in added) > 0, "the expert agreed with everything"
    assert len(TaskData(data / TASK)) == before, "the demonstrations were touched"

    # Two steps at a tiny rate: still about the weights it began with, and not fresh ones.
    first, last = weights(tiny_run.checkpoint), weights(out / "checkpoint")
    change = max(float(np.abs(first[name] - last[name]).max()) for name in first)
    assert 0 < change < 1e-3

    written = (out / "corrections" / "round-2" / TASK / "manifest.json").stat().st_mtime_ns
    assert main(command) == 0
    assert written == (out / "corrections" / "round-2" / TASK / "manifest.json").stat().st_mtime_ns
    assert main(["validate", str(out / "corrections")]) == 0


def test_what_cannot_be_corrected_is_said(tiny_run: TinyRun, data, tmp_path, capsys):
    common = ["--checkpoint", str(tiny_run.checkpoint), "--out", str(tmp_path / "out")]
    assert main(["dagger", TASK, *common, "--data", str(tmp_path / "nothing")]) == 1
    assert "collect" in capsys.readouterr().err
    assert main(["dagger", "text/pydoc", *common, "--data", str(data)]) != 0
    assert main(["dagger", TASK, *common, "--data", str(data), "--recipe", "quickstart",
                 "--episodes", "1", "schedule.steps=1"]) == 2  # fmt: skip
    assert "Leave model." in capsys.readouterr().err
    assert main(["dagger", TASK, *common, "--data", str(data), "--episodes", "1001"]) == 2
    assert "episodes is 1001, expected 1000 or less" in capsys.readouterr().err
    assert all(r["source"] == "expert" for r in TaskData(data / TASK).records), "nothing was played"
