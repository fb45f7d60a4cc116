"""FLOPs are those that torch counts, and a loss that stands out is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from generalist.errors import UsageError
from generalist.modeling.build import build_model
from generalist.training.losses import OrdinalTargets
from generalist.training.objective import TokenObjective
from generalist.training.strategies.launch import check_trackers
from generalist.training.tensors import to_tensors
from generalist.training.throughput import FlopCounter, SpikeDetector, peak_flops
from generalist.vocabulary import Vocabulary


@pytest.mark.parametrize("full_every", [1, 2])
def test_the_count_is_what_torch_counts_but_for_the_causal_half(make_recipe, data, full_every):
    """torch sees the matrix products; of attention's it sees all of the masked square."""
    recipe = make_recipe(loss={"full_every": full_every})
    vocabulary = Vocabulary.default()
    model = build_model(recipe.model, vocabulary, 64)
    model.set_attn_implementation("eager")
    objective = TokenObjective(model, OrdinalTargets(0, 1, 0))
    part = to_tensors(data.windows.batch(0, 2), np.ones(len(data.task_names)), segments=False)
    with FlopCounterMode(display=False) as counted:
        objective(part).sum().backward()
    counter = FlopCounter(recipe, vocabulary.size)
    tokens, targets = 2 * 64, len(part.targets.ids)
    matrices = counter.per_token * tokens + counter.per_target * full_every * targets
    square = 12 * recipe.model.layers * recipe.model.hidden_size * tokens * 64
    norms = 6 * tokens * (2 * recipe.model.layers + 1) * recipe.model.hidden_size
    assert counted.get_total_flops() == pytest.approx(matrices - norms + square, rel=0.02)
    attention = counter.of(part) - counter.per_token * tokens - counter.per_target * targets
    assert 0 < attention < square / 2 * 1.1


def test_only_what_is_known_has_a_peak():
    assert peak_flops(torch.device("cpu"), "bf16") is None


def test_a_spike_is_told_and_noise_is_not():
    detector = SpikeDetector()
    noise = np.random.default_rng(0).normal(2.0, 0.1, 500)
    assert [detector.see(float(loss)) for loss in noise].count(None) == 500
    assert "loss 4" in detector.see(4.0)
    assert "nan" in detector.see(float("nan"))
    assert detector.see(2.0) is None


@pytest.mark.parametrize(
    ("name", "message"), [("tensorbord", "did you mean 'tensorboard'"), ("clearml", "pip install")]
)
def test_trackers_that_would_be_left_out_are_said(name, message):
    check_trackers(["tensorboard"])
    with pytest.raises(UsageError, match=message):
        check_trackers([name])
