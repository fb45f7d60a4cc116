"""The loss against its definition written out in full."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from generalist.modeling.build import build_model
from generalist.modeling.recipe import ModelRecipe
from generalist.training.losses import OrdinalTargets, target_mass, token_losses
from generalist.training.objective import TokenObjective
from generalist.training.passes import PackedRows, Targets
from generalist.vocabulary import Vocabulary

SPEC = OrdinalTargets(start=100, stop=164, sigma_bins=3.0)
V = 180


def dense_targets(targets: torch.Tensor, ordinal: torch.Tensor, spec: OrdinalTargets):
    """(M, V) target distributions, from the definition."""
    ids = torch.arange(V)
    dense = F.one_hot(targets, V).double()
    for row in range(len(targets)):
        if ordinal[row] and spec.sigma_bins > 0:
            distance = (ids - targets[row]).double()
            mass = torch.exp(-0.5 * (distance / spec.sigma_bins) ** 2)
            mass[(ids < spec.start) | (ids >= spec.stop)] = 0
            mass[distance.abs() > spec.radius] = 0
            dense[row] = mass / mass.sum()
    return dense


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(7, V, generator=generator) * 4).requires_grad_()
    targets = torch.tensor([100, 163, 130, 5, 105, 179, 99])
    ordinal = torch.tensor([True, True, True, False, True, False, False])
    return logits, targets, ordinal


def test_equals_the_dense_definition(case):
    logits, targets, ordinal = case
    losses = token_losses(logits, targets, ordinal, SPEC)
    dense = dense_targets(targets, ordinal, SPEC)
    expected = -(dense * F.log_softmax(logits.double(), dim=1)).sum(1)
    torch.testing.assert_close(losses.double(), expected, atol=1e-5, rtol=1e-5)


def test_gradient_is_that_of_the_dense_definition(case):
    logits, targets, ordinal = case
    weight = torch.linspace(0.1, 2, 7)
    (mine,) = torch.autograd.grad(
        (token_losses(logits, targets, ordinal, SPEC) * weight).sum(), logits
    )
    dense = dense_targets(targets, ordinal, SPEC).float()
    expected_loss = -(dense * F.log_softmax(logits, dim=1)).sum(1)
    (expected,) = torch.autograd.grad((expected_loss * weight).sum(), logits)
    torch.testing.assert_close(mine, expected, atol=1e-6, rtol=1e-5)


def test_mass_stays_in_the_range_and_sums_to_one(case):
    _, targets, ordinal = case
    ids, mass = target_mass(targets, ordinal, SPEC)
    torch.testing.assert_close(mass.sum(1), torch.ones(7))
    spread = ids[ordinal][mass[ordinal] > 0]
    assert spread.min() >= SPEC.start and spread.max() < SPEC.stop
    assert (mass[~ordinal] > 0).sum(1).tolist() == [1, 1, 1]


def test_sigma_zero_is_plain_cross_entropy(case):
    logits, targets, ordinal = case
    losses = token_losses(logits, targets, ordinal, OrdinalTargets(100, 164, 0.0))
    expected = F.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)


def test_very_large_logits_give_a_finite_loss():
    logits = torch.zeros(1, V)
    logits[0, 3] = 1e4
    losses = token_losses(logits, torch.tensor([110]), torch.tensor([True]), SPEC)
    torch.testing.assert_close(losses, torch.tensor([1e4]))


def test_no_target_gives_an_empty_loss():
    nothing = torch.zeros(0, dtype=torch.int64)
    losses = token_losses(torch.zeros(0, V), nothing, nothing.bool(), SPEC)
    assert losses.shape == (0,)


def test_by_range_equals_a_softmax_over_the_range_and_full_at_every_nth():
    recipe = ModelRecipe(hidden_size=16, intermediate_size=16, layers=1, heads=2)
    vocabulary = Vocabulary.default()
    ranges = [(r.start, r.stop) for r in vocabulary]
    bins, discrete = vocabulary["continuous"], vocabulary["discrete"]
    spec = OrdinalTargets(bins.start, bins.stop, 2.0)
    objective = TokenObjective(
        build_model(recipe, vocabulary, 32), spec, ranges=ranges, full_every=3
    )
    ids = torch.tensor([bins.start, discrete.start + 1, 77, bins.stop - 1, discrete.stop - 1])
    ordinal = torch.tensor([True, False, False, True, False])
    ones = torch.ones(5)
    targets = Targets(
        index=torch.arange(5),
        ids=ids,
        ordinal=ordinal,
        task=torch.zeros(5, dtype=torch.int64),
        weight=ones,
        count=ones,
        order=torch.arange(5),
    )
    batch = PackedRows(
        input_ids=torch.arange(6)[None],
        position_ids=torch.arange(6)[None],
        segment_starts=torch.tensor([0, 6], dtype=torch.int32),
        targets=targets,
        attended=21,
    )
    losses = objective(batch)
    objective.full_every = 1
    full = objective(batch)
    hidden = objective.model.get_decoder()(input_ids=batch.input_ids).last_hidden_state[0, :5]
    logits = objective.model.get_output_embeddings()(hidden)
    outside = torch.ones_like(logits, dtype=torch.bool)
    for row, target in enumerate(ids):
        allowed = vocabulary.range_of(int(target))
        outside[row, allowed.start : allowed.stop] = False
    within = token_losses(logits.masked_fill(outside, -1e9), ids, ordinal, spec)
    # Targets 0 and 3 are counted as every third, target 2 is text.
    expected = torch.stack([full[0], within[1], full[2], full[3], within[4]])
    torch.testing.assert_close(losses, expected, atol=1e-4, rtol=1e-5)
    losses.sum().backward()
