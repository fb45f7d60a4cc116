"""Gradients on several cores: the same as on one, and failures told in words."""

from __future__ import annotations

import os
import shutil
import signal
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch

from generalist.errors import GeneralistError
from generalist.training.gradients import ParallelGradients, share_gradients
from generalist.training.loop import Trainer, build_trainer
from generalist.training.passes import Pass
from generalist.training.strategies.launch import start_accelerator, torch_settings_kept
from generalist.training.tensors import to_tensors


@pytest.fixture
def trainer(make_recipe, data):
    """A model and its data; helpers, once started, end with the test."""
    with torch_settings_kept():
        recipe = make_recipe(cores=3)
        trainer = build_trainer(recipe, data, start_accelerator(recipe))
        yield trainer
        trainer.strategy.gradients.close()


def passes_of(trainer: Trainer) -> list[Pass]:
    """The passes of the first step."""
    with trainer.source.batches(0, trainer._share) as batches:
        return next(batches)


def gradients_of(trainer: Trainer) -> list[torch.Tensor]:
    gradients = [p.grad.clone() for p in trainer.strategy.gradients.parameters]
    trainer.objective.zero_grad(set_to_none=True)
    return gradients


def test_helpers_change_nothing_and_see_every_change_of_the_weights(trainer):
    parts = passes_of(trainer)
    assert len(parts) == 4 and isinstance(trainer.strategy.gradients, ParallelGradients)
    for _ in range(2):
        total, losses = trainer.strategy.gradients.accumulate(parts, 0.5)
        together = gradients_of(trainer)
        expected, alone, expected_losses = share_gradients(
            trainer.objective, trainer.strategy.gradients.parameters, parts, 0.5
        )
        torch.testing.assert_close(total, expected)
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
        for (part, loss), given, wanted in zip(losses, parts, expected_losses, strict=True):
            assert part is given
            torch.testing.assert_close(loss, wanted)
        with torch.no_grad():
            for parameter in trainer.strategy.gradients.parameters:
                parameter.mul_(1.5)
    assert len(trainer.strategy.gradients.helpers) == 2


def test_helpers_ignore_the_signals_that_stop_training_and_leave_with_it(trainer):
    parts = passes_of(trainer)
    before, _ = trainer.strategy.gradients.accumulate(parts, 1.0)
    processes = [helper.process for helper in trainer.strategy.gradients.helpers]
    for process in processes:
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGTERM)
    after, _ = trainer.strategy.gradients.accumulate(parts, 1.0)
    assert torch.equal(before, after)
    trainer.strategy.gradients.close()
    assert [process.exitcode for process in processes] == [0, 0]


def test_the_end_of_a_helper_is_told(trainer):
    parts = passes_of(trainer)
    trainer.strategy.gradients.accumulate(parts, 1.0)
    trainer.strategy.gradients.helpers[0].process.kill()
    trainer.strategy.gradients.helpers[0].process.join()
    with pytest.raises(GeneralistError, match="exit code -9.*cores=1"):
        trainer.strategy.gradients.accumulate(parts, 1.0)


def test_an_error_of_a_helper_is_raised_here(trainer):
    parts = passes_of(trainer)
    targets = replace(parts[1].targets, weight=torch.ones(3, 5))
    parts[1] = replace(parts[1], targets=targets)
    with pytest.raises(RuntimeError, match="size of tensor"):
        trainer.strategy.gradients.accumulate(parts, 1.0)


def test_too_little_shared_memory_is_an_error_and_not_a_crash(trainer, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 10))
    with pytest.raises(GeneralistError, match="shared memory.*--shm-size"):
        trainer.strategy.gradients.accumulate(passes_of(trainer), 1.0)


def test_signed_weights_divide_by_the_count_and_not_by_about_zero(trainer, data):
    """As advantages have them: their sum says nothing about how many targets there are."""
    batch = data.windows.batch(0, 4)
    sign = np.where(np.arange(batch.weight.size) % 2, 1, -1).reshape(batch.weight.shape)
    batch.weight = (batch.weight * sign).astype(np.float32)
    passes = [
        to_tensors(rows, trainer.source.task_weights, segments=True) for rows in batch.split(2)
    ]
    weights = torch.cat([each.targets.weight for each in passes])
    count = sum(each.targets.count.sum().item() for each in passes)
    assert count == len(weights) > 10 and abs(weights.sum()) < 0.3 * count
    losses = torch.cat([trainer.objective(each).detach() for each in passes])
    total, _ = trainer.strategy.accumulate(passes, 1 / count)
    torch.testing.assert_close(total, (losses * weights).sum() / count)
    assert max(float(gradient.abs().max()) for gradient in gradients_of(trainer)) < 10


@pytest.mark.parametrize("segments", [True, False])
def test_weights_of_rows_and_of_tasks_multiply(data, segments):
    batch = data.windows.batch(0, 3)
    batch.weight, batch.count = batch.weight * np.float32(0.5), batch.count * np.float32(2)
    of_task = np.linspace(1, 3, len(data.task_names)).astype(np.float32)
    targets = to_tensors(batch, of_task, segments=segments).targets
    torch.testing.assert_close(targets.weight, torch.from_numpy(0.5 * of_task)[targets.task])
    torch.testing.assert_close(targets.count, torch.from_numpy(2 * of_task)[targets.task])
