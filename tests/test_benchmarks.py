"""The programs in benchmarks/: that they run, and that what they report is what it is called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import imitation
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
