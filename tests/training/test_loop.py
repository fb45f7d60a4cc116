"""Properties of whole runs: resumed equals uninterrupted, splits do not matter, NaN stays out."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch

from generalist.errors import GeneralistError
from generalist.training import gradients
from generalist.training.checkpoint import list_checkpoints
from generalist.training.loop import TrainingInterrupted, train
from tests.training.runs import Counting, assert_bitwise_equal, replaced, weights


@pytest.mark.parametrize(
    ("optimizer", "cores", "precision"),
    [
        ("adamw", 2, "fp32"),  # these two have each value of each once
        ("muon", 1, "bf16"),
        pytest.param("adamw", 1, "fp32", marks=pytest.mark.slow),
        pytest.param("muon", 1, "fp32", marks=pytest.mark.slow),
        pytest.param("muon", 2, "fp32", marks=pytest.mark.slow),
        pytest.param("adamw", 2, "bf16", marks=pytest.mark.slow),
    ],
)
def test_resumed_equals_uninterrupted_bitwise(
    make_recipe, data, tmp_path, optimizer, cores, precision
):
    options = {"optimizer": {"name": optimizer}, "cores": cores, "precision": precision}
    train(make_recipe(**options, output_dir=tmp_path / "whole"), data)

    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = Counting(data.windows, at=4 * 3, action=terminate)
    with pytest.raises(TrainingInterrupted, match="same command continues"):
        train(make_recipe(**options, output_dir=tmp_path / "cut"), replaced(data, stopping))
    newest = list_checkpoints(tmp_path / "cut" / "checkpoints")[0]
    assert 0 < json.loads((newest / "state.json").read_text())["step"] < 6
    assert not (tmp_path / "cut" / "checkpoint").exists()

    reading = Counting(data.windows)
    train(make_recipe(**options, output_dir=tmp_path / "cut"), replaced(data, reading))
    assert min(reading.rows) >= 4  # it did not begin again
    assert_bitwise_equal(tmp_path / "whole", tmp_path / "cut")


def test_how_rows_are_split_does_not_matter(make_recipe, data, tmp_path):
    runs = {}
    for cores, per_forward in [(1, 4), (2, 1), (3, 2)]:
        options = {"cores": cores, "loss": {"full_every": 3}}
        recipe = make_recipe(**options, output_dir=tmp_path / f"{cores}")
        recipe.data.rows_per_forward = per_forward
        # A gradient of 5e-10, all of it rounding, is no step of its own under this.
        recipe.optimizer.eps = 1e-6
        train(recipe, data)
        runs[cores] = weights(tmp_path / f"{cores}")
    for run in (runs[2], runs[3]):
        for name, tensor in runs[1].items():
            torch.testing.assert_close(run[name], tensor, atol=2e-5, rtol=1e-4)


def test_who_prepares_the_rows_does_not_matter(make_recipe, data, tmp_path):
    for workers in (0, 2):
        recipe = make_recipe(cores=1, output_dir=tmp_path / f"{workers}")
        recipe.data.workers = workers
        train(recipe, data)
    assert_bitwise_equal(tmp_path / "0", tmp_path / "2")


def test_bfloat16_is_near_float32_on_all_cores(make_recipe, data, tmp_path):
    losses = {}
    for precision, cores in [("fp32", 1), ("bf16", 1), ("bf16", 2)]:
        run = tmp_path / f"{precision}-{cores}"
        train(make_recipe(precision=precision, cores=cores, output_dir=run), data)
        rows = (run / "log.jsonl").read_text().splitlines()
        losses[precision, cores] = [json.loads(row)["loss"] for row in rows]
    exact = losses.pop(("fp32", 1))
    for found in losses.values():
        assert found != exact
        np.testing.assert_allclose(found, exact, rtol=0.01)


def test_training_learns(make_recipe, data, tmp_path):
    train(make_recipe(schedule={"steps": 30, "warmup_steps": 3}), data)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    assert set(data.task_names) <= {key.removeprefix("loss/") for key in rows[-1]}
    assert rows[-1]["tokens_per_second"] > 0 and 0 <= rows[-1]["data_wait_share"] <= 1


def test_a_non_finite_gradient_never_reaches_the_weights(make_recipe, data, tmp_path, monkeypatch):
    """The third step's loss is made NaN; it is skipped, and the run goes on."""
    real, calls = gradients.ParallelGradients.accumulate, []

    def spoiled(self, parts, scale):
        calls.append(len(calls))
        return real(self, parts, float("nan") if calls[-1] == 2 else scale)

    monkeypatch.setattr(gradients.ParallelGradients, "accumulate", spoiled)
    train(make_recipe(), data)
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    state = json.loads((newest / "state.json").read_text())
    assert state["skipped"] == 1 and state["step"] == 6


def test_too_many_non_finite_steps_stop_with_a_sentence(make_recipe, data, monkeypatch):
    real = gradients.ParallelGradients.accumulate
    monkeypatch.setattr(
        gradients.ParallelGradients,
        "accumulate",
        lambda self, parts, scale: real(self, parts, float("inf")),
    )
    with pytest.raises(GeneralistError, match="not finite.*optimizer.lr"):
        train(make_recipe(optimizer={"max_skipped": 2}), data)


def test_another_recipe_is_refused_in_the_same_folder(make_recipe, data):
    train(make_recipe(), data)
    with pytest.raises(GeneralistError, match=r"optimizer\.lr: 0\.003 -> 0\.001"):
        train(make_recipe(optimizer={"lr": 0.001}), data)


def test_a_finished_run_is_not_trained_again(make_recipe, data):
    train(make_recipe(), data)
    reading = Counting(data.windows)
    train(make_recipe(log_every=1), replaced(data, reading))
    assert min(reading.rows) >= 4 * 6


@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_torch_is_left_as_it_was(make_recipe, data, ends):
    """Acting in the process that trained would be slow, and other numbers would be rounded."""

    def fail() -> None:
        raise RuntimeError("the disk is gone")

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        if ends == "well":
            train(make_recipe(), data)
        else:
            with pytest.raises(RuntimeError, match="the disk is gone"):
                train(make_recipe(cores=2), replaced(data, Counting(data.windows, 8, fail)))
        assert torch.get_num_threads() == 3
        assert (torch.tensor([1e-30]) * 1e-12).item() > 0  # subnormal
    finally:
        torch.set_num_threads(before)


def test_minutes_end_a_run(make_recipe, data, tmp_path):
    train(make_recipe(schedule={"minutes": 0.03, "warmup_steps": 1}), data)
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    state = json.loads((newest / "state.json").read_text())
    assert state["step"] > 0 and state["elapsed_seconds"] >= 0.03 * 60


def test_rows_are_those_of_the_step_number_alone(make_recipe, data, tmp_path):
    reading = Counting(data.windows)
    train(make_recipe(), replaced(data, reading))
    # One step is read ahead; every row up to there is read once.
    assert np.array_equal(np.sort(reading.rows), np.arange(len(reading.rows)))
    assert len(reading.rows) in (4 * 7, 4 * 8)


def test_rows_that_do_not_fill_the_cores_are_fine(make_recipe, data):
    recipe = make_recipe(cores=3, schedule={"steps": 1, "warmup_steps": 0})
    recipe.data.rows_per_step = 1
    assert train(recipe, data).is_dir()


@pytest.mark.slow
def test_compiled_equals_not_compiled(make_recipe, data, tmp_path):
    """`compile` takes the plain pass over whole rows, compiled; the other run the lean one."""
    for name, compiled in {"lean": False, "compiled": True}.items():
        options = {"compile": compiled, "schedule": {"steps": 2, "warmup_steps": 0}}
        train(make_recipe(**options, cores=1, output_dir=tmp_path / name), data)
    lean, compiled = weights(tmp_path / "lean"), weights(tmp_path / "compiled")
    for name, tensor in lean.items():
        torch.testing.assert_close(compiled[name], tensor, atol=2e-4, rtol=1e-3)
